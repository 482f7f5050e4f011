#!/bin/sh
# Makes what nats-server.conf, compose-fleet.yaml and kubernetes-fleet.yaml need, in the folder nats:
#
#     sh fleet-secrets.sh nats.example.org front host1 host2
#
# an authority (ca.pem, ca.key), the certificate of a NATS server by that name, and passwords for these
# users: in passwords.conf for nats-server, in environment for whoever starts fronts and hosts. What is
# there already is kept. ca.key signs further servers, and belongs on none of them.
set -eu
umask 077
server=$1
shift
mkdir -p nats
cd nats

[ -e ca.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=agent-gateway fleet" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout ca.key -out ca.pem

if [ ! -e server.pem ]; then
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$server" \
        -keyout server.key -out server.csr
    # `nats` is its name within Compose and Kubernetes.
    printf '%s\n' "subjectAltName=DNS:$server,DNS:nats,DNS:localhost,IP:127.0.0.1" \
        "keyUsage=critical,digitalSignature" "authorityKeyIdentifier=keyid" >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 \
        -extfile server.ext -out server.pem
    rm server.csr server.ext
fi

touch passwords.conf environment
for user; do
    name=$(printf %s "$user" | tr 'a-z-' 'A-Z_')_PASSWORD
    grep -q "^$name:" passwords.conf && continue
    password=$(openssl rand -hex 24)
    printf '%s: "%s"\n' "$name" "$password" >>passwords.conf
    printf '%s=%s\n' "$name" "$password" >>environment
done
