#!/bin/sh
# The echo agent as a shell script, for any POSIX shell with jq.
#
#     gateway --agent echo="sh worker/examples/echo.sh"
#
# It sends no `ready`, and so gets one request at a time, and no `cancel`. Answers leave at once,
# because each jq ends with its line. When jq fails, the request still gets its answer.

while IFS= read -r line; do
    printf '%s\n' "$line" | jq -c '
        def answer:
            if .method == "invoke" then {result: {output: .params.input}}
            elif .method == "chat" then
                ([.params.messages[] | select(.role == "user")] | last) as $said
                | if $said
                  then {result: {message: {role: "assistant", content: $said.content}}}
                  else {error: {code: -32602, message: "there is no message of the user'\''s to repeat"}}
                  end
            else {error: {code: -32601, message: "no such method"}}
            end;
        {jsonrpc: "2.0", id} + answer' ||
        printf '%s\n' "$line" |
            jq -c '{jsonrpc: "2.0", id, error: {code: -32603, message: "the script failed"}}'
done
