"""Settings: every error names the key, what it holds and what was expected; all sources agree."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest

from gateway.config import (
    AgentSettings,
    Clocks,
    ConfigError,
    LimitSettings,
    ServerSettings,
    Workers,
    load,
    parse_agent_option,
)

ONE_AGENT = '[agents.a]\ncommand = "run"\n'


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "gateway.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        # tables
        ("[agent.a]\n", ["agent", "unknown table", "[agents]"]),
        ("server = 1\n" + ONE_AGENT, ["server", "expected a table", "1"]),
        ("defaults = []\n" + ONE_AGENT, ["defaults", "expected a table", "[]"]),
        ("agents = 'x'\n", ["agents", "expected a table", "'x'"]),
        ("[agents]\na = 'run'\n", ["agents.a", "expected a table", "'run'"]),
        ("", ["no agent", "--agent NAME=COMMAND", "[agents.NAME]"]),
        # [server]
        ("[server]\nprot = 1\n" + ONE_AGENT, ["server", "unknown key `prot`", "host, port"]),
        ("[server]\nport = 70000\n" + ONE_AGENT, ["server.port", "<= 65535", "70000"]),
        ("[server]\nport = -1\n" + ONE_AGENT, ["server.port", ">= 0", "-1"]),
        ("[server]\nport = 'http'\n" + ONE_AGENT, ["server.port", "int", "'http'"]),
        ("[server]\nmax_body = 'much'\n" + ONE_AGENT, ["server", "max_body", "'much'"]),
        ("[server]\nlog_level = 'loud'\n" + ONE_AGENT, ["server.log_level", "'loud'", "'warning'"]),
        ("[server]\nhosts = 'a'\n" + ONE_AGENT, ["server.hosts", "array", "'a'"]),
        ("[server]\nhosts = [1]\n" + ONE_AGENT, ["server.hosts", "str", "1"]),
        *(
            (
                f"[server]\nhosts = ['good.example', '{bad}']\n" + ONE_AGENT,
                ["server", f"hosts has '{bad}'", "'*.example.org'", "without a port"],
            )
            for bad in ("a:80", "a..b", "", "http://a", "[::1]", "*.", "*.10.0.0.1", "a.*", ".a")
        ),
        *(
            (f"[server]\ncors = ['https://good.example', '{bad}']\n" + ONE_AGENT, ["cors", *words])
            for bad, words in {
                "*": ["beside other origins"],
                "null": ["'null' is not an origin", "'https://app.example'"],
                "https://App.example": ["lower case"],
                "https://app.example/": ["without a path"],
                "https://app.example/x": ["without a path"],
                "https://app.example:443": ["browsers leave out", "expected 'https://app.example'"],
                "http://app.example:80": ["expected 'http://app.example'"],
                "https://app.example:0443": ["not an origin"],
                "https://me@app.example": ["not an origin"],
                "https://me:secret@app.example": ["not an origin"],
                "https://*.example": ["not an origin"],
                "https://app.example.": ["not an origin"],
                "https://[::1": ["not an origin"],
                "https://::1": ["not an origin"],
                "https://[0::1]": ["not an origin"],
                "https://": ["not an origin"],
                "app.example": ["not an origin"],
                "//app.example": ["not an origin"],
                "": ["not an origin"],
            }.items()
        ),
        (
            "[server]\nconnections_per_address = -1\n" + ONE_AGENT,
            ["server.connections_per_address", ">= 0", "-1"],
        ),
        ("[server]\ndrain = 'on'\n" + ONE_AGENT, ["server.drain", "'off'", "'on'"]),
        ("[server.runs]\nmemory = '1M'\n" + ONE_AGENT, ["server.runs", "'1M'", "at least 16M"]),
        ("[server.runs]\nmax = 0\n" + ONE_AGENT, ["server.runs.max", ">= 1", "got 0"]),
        ("[server.runs]\nttl = 0\n" + ONE_AGENT, ["server.runs.ttl", "> 0", "0"]),
        ("[server.runs]\ntime = 1\n" + ONE_AGENT, ["server.runs", "`time`", "max, ttl, memory"]),
        # [agents.NAME]
        ("[agents.a]\n", ["agents.a", "no command", "a string, or a list of words"]),
        ("[agents.a]\ncommand = 7\n", ["agents.a.command", "str", "7"]),
        ("[agents.a]\ncommand = ''\n", ["agents.a", "command is empty"]),
        ("[agents.a]\ncommand = []\n", ["agents.a", "command is empty"]),
        ('[agents.a]\ncommand = "run \'x"\n', ["agents.a", "quotation"]),
        (ONE_AGENT + "cuncurrency = 1\n", ["agents.a", "unknown key `cuncurrency`", "concurrency"]),
        (ONE_AGENT + "concurrency = 0\n", ["agents.a.concurrency", ">= 1", "got 0"]),
        (ONE_AGENT + "queue = -1\n", ["agents.a.queue", ">= 0", "got -1"]),
        (ONE_AGENT + "session = 'shared'\n", ["agents.a.session", "'shared'", "'sticky'"]),
        (
            ONE_AGENT + "on_disconnect = 'stop'\n",
            ["agents.a.on_disconnect", "'stop'", "'continue'"],
        ),
        (ONE_AGENT + "max_rss = 'lots'\n", ["agents.a", "max_rss", "'lots'"]),
        (
            ONE_AGENT + "workers = { min = 2, max = 1 }\n",
            ["agents.a.workers", "min is 2"],
        ),
        (ONE_AGENT + "workers = { spare = 9 }\n", ["agents.a.workers", "spare is 9", "max is 4"]),
        (ONE_AGENT + "workers = 3\n", ["agents.a.workers", "object", "got 3"]),
        (
            ONE_AGENT + "[agents.a.clocks]\ntotal = -1\n",
            ["agents.a.clocks.total", ">= 0", "got -1"],
        ),
        (
            "[server]\nmetrics = 'yes'\n" + ONE_AGENT,
            ["server.metrics", "true or false", "'open'", "a list", "'yes'"],
        ),
        (
            "[server]\nmetrics = ['nobody']\n" + ONE_AGENT,
            ["server.metrics", "no [keys.nobody]"],
        ),
        (
            ONE_AGENT + "[agents.a.clocks]\ntotal = 'soon'\n",
            ["agents.a.clocks.total", "a number or 'off'", "'soon'"],
        ),
        (ONE_AGENT + "[agents.a.clocks]\ntotl = 1\n", ["agents.a.clocks", "`totl`", "total"]),
        (
            ONE_AGENT + "[agents.a.restart]\nfailures = 0\n",
            ["agents.a.restart.failures", ">= 1", "got 0"],
        ),
        *(
            (ONE_AGENT + f"[agents.a.limits]\n{text}\n", ["agents.a.limits", *words])
            for text, words in (
                ("concurrent = -1", ["limits.concurrent", ">= 0", "-1"]),
                ("requests_per_second = 0.5", ["limits.requests_per_second", "int", "0.5"]),
                ("requests_per_minute = '9'", ["limits.requests_per_minute", "int", "'9'"]),
                ("max_body = 'much'", ["max_body is 'much'", "512M"]),
                ("max_body = -1", ["max_body is -1", "not negative"]),
                ("per_second = 1", ["`per_second`", "requests_per_second"]),
            )
        ),
        ("[agents.'a b']\ncommand = 'run'\n", ["'a b'", "letters, digits, '_' and '-'"]),
        ("[agents.'a\\n']\ncommand = 'run'\n", ["a\\\\n", "letters"]),
        (
            ONE_AGENT + "[agents.a.sandbox]\nmounts_ro = [1]\n",
            ["a.sandbox.mounts_ro", "str", "[1]"],
        ),
        (ONE_AGENT + "[agents.a.sandbox]\nenv = { A = 1 }\n", ["a.sandbox.env", "str", "1"]),
        ("[agents.a]\ncommand = [1]\n", ["agents.a.command", "str", "[1]"]),
        # [defaults]: the error stands where the mistake does
        ("[defaults]\nqueue = -1\n" + ONE_AGENT, ["defaults.queue", ">= 0", "got -1"]),
        ("[defaults.clocks]\nidel = 1\n" + ONE_AGENT, ["defaults.clocks", "`idel`", "idle"]),
        # not TOML
        ("[agents.a\n", ["not valid TOML", "line 1"]),
        (b"\xff\xfe", ["not valid TOML", "gateway.toml"]),
    ],
)
def test_an_error_names_the_key_its_value_and_what_was_expected(write, toml, words) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(toml))
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: No such file or directory"):
        load(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_the_file_and_the_flags_give_the_same_settings(write) -> None:
    path = write('[server]\nport = 9000\nhost = "::1"\n[agents.a]\ncommand = "run \'1 word\' 2"\n')
    from_file = load(path)
    from_flags = load(agents={"a": "run '1 word' 2"}, server={"port": 9000, "host": "::1"})
    assert from_file.server == from_flags.server
    assert from_file.agents == from_flags.agents
    assert from_file.agents["a"].argv == ("run", "1 word", "2")


def test_limits_are_merged_with_the_defaults_and_0_is_none(write) -> None:
    path = write(
        "[defaults.limits]\nconcurrent = 2\nmax_body = '1K'\n"
        + ONE_AGENT
        + "[agents.a.limits]\nconcurrent = 0\nrequests_per_minute = 60\n"
    )
    limits = load(path).agents["a"].limits
    assert limits == LimitSettings(requests_per_minute=60, max_body="1K")
    assert limits.max_body_bytes == 1024
    assert math.isinf(LimitSettings().max_body_bytes)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://app.example",
        "http://localhost:3000",
        "https://app.example:8443",
        "http://127.0.0.1:5173",
        "http://[::1]:5173",
        "https://xn--bcher-kva.example",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "tauri://localhost",
    ],
)
def test_origins_are_written_as_browsers_write_them(write, origin: str) -> None:
    path = write(f"[server]\ncors = ['{origin}']\n" + ONE_AGENT)
    assert load(path).server.cors == [origin]


def test_a_list_of_words_is_not_split_again(write) -> None:
    path = write('[agents.a]\ncommand = ["run", "one word", "$HOME"]\n')
    assert load(path).agents["a"].argv == ("run", "one word", "$HOME")


def test_flags_override_the_file_key_by_key(write) -> None:
    path = write('[server]\nport = 1\ndrain = 5\n[agents.a]\ncommand = "old"\nqueue = 7\n')
    settings = load(path, agents={"a": "new", "b": "other"}, server={"port": 2})
    assert (settings.server.port, settings.server.drain) == (2, 5)
    assert (settings.agents["a"].argv, settings.agents["a"].queue) == (("new",), 7)
    assert settings.agents["b"] == AgentSettings(command="other")
    assert settings.path == path


def test_defaults_are_merged_table_by_table_and_the_agents_own_values_win(write) -> None:
    settings = load(
        write(
            """
            [defaults]
            command = "shared"
            queue = 5
            workers = { min = 2, max = 8 }
            [defaults.clocks]
            total = 60
            idle = 20
            [agents.plain]
            [agents.own]
            command = "mine"
            workers = { max = 3 }
            [agents.own.clocks]
            idle = "off"
            """
        )
    ).agents
    assert settings["plain"] == AgentSettings(
        command="shared", queue=5, workers=Workers(min=2, max=8), clocks=Clocks(total=60, idle=20)
    )
    assert settings["own"] == AgentSettings(
        command="mine", queue=5, workers=Workers(min=2, max=3), clocks=Clocks(total=60, idle="off")
    )


@pytest.mark.parametrize("off", [0, "off"])
def test_a_clock_that_is_off_never_runs_out(off) -> None:
    assert Clocks(idle=off).seconds("idle") == math.inf
    assert ServerSettings(drain=off).drain_seconds == math.inf


def test_every_clock_of_the_design_has_a_default() -> None:
    names = ("start", "queue", "first", "idle", "total", "cancel", "write", "stop")
    assert all(0 < Clocks().seconds(name) < math.inf for name in names)
    assert 0 < ServerSettings().drain_seconds < math.inf


def test_a_body_of_the_largest_size_fits_into_one_line_of_the_wire() -> None:
    from protocol import MAX_LINE_BYTES

    assert ServerSettings().max_body_bytes == 7 * 1024**2 < MAX_LINE_BYTES


def test_an_agent_option_is_split_at_its_first_equals_sign() -> None:
    assert parse_agent_option("a=run x=1") == ("a", "run x=1")
    with pytest.raises(ConfigError, match="'run': expected NAME=COMMAND"):
        parse_agent_option("run")


def test_a_misspelt_command_is_an_unknown_key_and_not_a_missing_command(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[agents.echo]\ncomand = "cat"\n')
    with pytest.raises(ConfigError, match=r"agents\.echo: unknown key `comand`"):
        load(path)


@pytest.mark.parametrize(
    ("command", "operator"),
    [
        ("cat | jq", "|"),
        ("python a.py 2>&1", "2>&1"),
        ("python a.py > log", ">"),
        ("cd x && python a.py", "&&"),
        ("cd x; python a.py", ";"),
        ("python a.py &", "&"),
    ],
)
def test_a_shells_operator_is_refused_with_the_words_that_call_a_shell(
    command: str, operator: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(agents={"a": command})
    said = (
        f"command has {operator!r}, which only a shell understands, and there is none: write sh -c"
    )
    assert said in str(error.value)
    assert load(agents={"a": f"sh -c {shlex.quote(command)}"})


@pytest.mark.parametrize(
    "command",
    ["jq '|'", "jq -c '.a | .b'", r"x \| y", "x http://h/?a=1&b=2", "sed 's/a;/b/'", "x 'a;'"],
)
def test_what_is_quoted_or_within_a_word_is_no_operator(command: str) -> None:
    assert load(agents={"a": command}).agents["a"].argv == tuple(shlex.split(command))
    assert load(agents={"a": "x"})


@pytest.mark.parametrize(
    ("written", "size", "ttl"),
    [
        ("true", 0, math.inf),
        ('{ size = "1G" }', 1 << 30, math.inf),
        ('{ ttl = "30d" }', 0, 30 * 86_400),
        ('{ ttl = "1.5h", size = 5 }', 5, 5400),
        ("{ ttl = 60 }", 0, 60),
        ('{ ttl = "off" }', 0, math.inf),
        ("{ ttl = 0 }", 0, math.inf),
    ],
)
def test_what_outlives_workers_may_be_limited(write, written: str, size: int, ttl: float) -> None:
    agent = load(write(f"{ONE_AGENT}state = {written}\n")).agents["a"]
    assert agent.kept is not None
    assert (agent.kept.size_bytes, agent.kept.ttl_seconds) == (size, ttl)
    assert not agent.state_per_conversation
    agent = load(write(f'{ONE_AGENT}state = {written}\nsession = "exclusive"\n')).agents["a"]
    assert agent.state_per_conversation
    assert load(write(f"{ONE_AGENT}state = false\n")).agents["a"].kept is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{ ttl = "30 days" }', 'expected a time such as "30d"'),
        ('{ ttl = "0d" }', 'expected a time such as "30d"'),
        ("{ ttl = -1 }", "ttl"),
        ('{ size = "much" }', "expected a size"),
        ("{ sizes = 1 }", "sizes"),
        ('"yes"', "state"),
    ],
)
def test_a_wrong_limit_is_named(write, written: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(f"{ONE_AGENT}state = {written}\n"))
    assert "agents.a.state" in str(error.value)
    assert said in str(error.value)
