"""send, end, listen, info and delete: what they do, print and answer a shell."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from streamy_redis import StreamConfig, StreamManager
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import RedisServer

from .conftest import COMMAND, VARIABLES, Commands

NAMES = ["send", "end", "listen", "info", "delete", "doctor", "demo"]


@pytest.fixture
def streams(commands: Commands):
    with StreamManager(commands.url, config=StreamConfig(prefix=commands.prefix)) as manager:
        yield manager


def history(streams: StreamManager, stream_id: str) -> list[tuple[str, str, str]]:
    """Kind, name and data of all there is, up to the end."""
    streams.end_stream(stream_id)
    with streams.subscribe(stream_id, replay="all") as events:
        return [(event.id, event.name, event.data) for event in events if event.kind == "event"]


def test_sends_one_event_and_prints_its_id(commands: Commands, streams: StreamManager):
    done = commands.call("send", "room", "hällo\nworld", "--event", "greeting")

    assert (done.returncode, done.stderr) == (0, "")
    assert history(streams, "room") == [(done.stdout.strip(), "greeting", "hällo\nworld")]


def test_sends_each_line_of_standard_input(commands: Commands, streams: StreamManager):
    done = commands.call("send", "room", stdin="a\r\n\nb b\nthe last")

    sent = history(streams, "room")
    assert done.stdout.split() == [event_id for event_id, _, _ in sent]
    assert [data for _, _, data in sent] == ["a", "", "b b", "the last"]


def test_sends_a_line_as_soon_as_it_comes(commands: Commands, streams: StreamManager):
    process = commands.start("send", "room", "--quiet")
    assert process.stdin

    process.stdin.write("now\n")
    process.stdin.flush()

    Deadline(20).until(lambda: streams.info("room").length == 1, "sent while the pipe is open")
    assert process.poll() is None


def test_what_is_refused_is_told_by_its_line(commands: Commands, streams: StreamManager):
    refused = commands.call("send", "room", stdin=b"a\nb\n\xff\xfe\0\nd\n")

    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: data must be UTF-8")
    assert "that was line 3, those before it were sent" in refused.stderr
    assert [data for _, _, data in history(streams, "room")] == ["a", "b"]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(commands: Commands):
    process = commands.start("send", "room")
    assert process.stdin
    assert process.stderr

    process.stdin.write("x" * (StreamConfig().max_event_size + 10))
    process.stdin.flush()

    # Its standard input is still open.
    assert process.wait(20) == 2
    assert "data must be at most" in process.stderr.read()


def test_a_key_makes_repeating_harmless(commands: Commands, streams: StreamManager):
    for _ in range(2):
        assert commands.call("send", "room", "once", "--key", "k").returncode == 0
        assert commands.call("send", "room", "--key", "l", stdin="a\na\n").returncode == 0

    assert [data for _, _, data in history(streams, "room")] == ["once", "a", "a"]


def test_keeps_the_history_that_it_is_told(commands: Commands, streams: StreamManager):
    commands.call("send", "room", "--history-length", "2", stdin="a\nb\nc\n")

    assert streams.info("room").length == 2


@pytest.mark.parametrize("data", ["{", "NaN", "", "[" * 100_000], ids=lambda data: data[:3])
def test_json_is_checked_when_asked(commands: Commands, streams: StreamManager, data: str):
    refused = commands.call("send", "room", data, "--json")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Error: data must be JSON")
    assert commands.call("send", "room", '{"a": [1]}', "--json").returncode == 0
    assert [sent for _, _, sent in history(streams, "room")] == ['{"a": [1]}']


def test_listens_until_the_end(commands: Commands):
    process = commands.start("listen", "room")
    commands.wait_listening("room")
    # The subscription begins a moment after Redis counts it.
    Deadline(20).until(lambda: _hears(commands, process), "an event is heard")
    commands.call("end", "room", "bye")

    rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest.splitlines()[-1].endswith("  stream-end  bye")
    assert errors == ""


def _hears(commands: Commands, process: subprocess.Popen[str]) -> str:
    assert process.stdout
    commands.call("send", "room", "x")
    return process.stdout.readline()


def test_prints_json_lines(commands: Commands):
    commands.call("send", "room", stdin="a\nb\n")
    commands.call("end", "room", "é")

    done = commands.run("listen", "room", "--json", "--replay", "1")

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(e["kind"], e["data"], e["stream_id"]) for e in events] == [
        ("event", "b", "room"),
        ("end", "é", "room"),
    ]
    # Whatever the locale is.
    assert done.stdout.isascii()


def test_begins_behind_an_event(commands: Commands):
    first, *_ = commands.call("send", "room", stdin="a\nb\nc\n").stdout.split()
    commands.call("end", "room")

    done = commands.run("listen", "room", "--last-event-id", first)

    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == ["b", "c", "{}"]


def test_an_empty_last_event_id_is_none(commands: Commands):
    commands.call("send", "room", stdin="a\nb\n")
    commands.call("end", "room")

    done = commands.run("listen", "room", "--last-event-id", "", "--replay", "1")

    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == ["b", "{}"]


def test_text_can_not_steer_the_terminal(commands: Commands):
    commands.call("send", "room", "red\x1b[31m\nsecond")
    commands.call("end", "room")

    done = commands.run("listen", "room", "--replay", "all")

    assert "\x1b" not in done.stdout
    first, second, _ = done.stdout.splitlines()
    assert first.endswith("message  red\\x1b[31m")
    assert second.startswith(" ")
    assert second.strip() == "second"


STEERING = "\x1b]0;title\x07\x1b[31m\x9b31m\x7f\u202e\u2066"


def answer(connection: socket.socket, reply: bytes) -> None:
    """What a Redis does for HELLO and the like, and this reply for whatever a command asks."""
    # A command that has had its fill leaves.
    with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
        while (head := lines.readline()).startswith(b"*"):
            words = []
            for _ in range(int(head[1:])):
                words.append(lines.read(int(lines.readline()[1:]) + 2))
            is_greeting = words[0].strip() in (b"CLIENT", b"SELECT")
            connection.sendall(b"+OK\r\n" if is_greeting else reply)


@pytest.fixture(params=["error", "texts"])
def hostile_redis(request: pytest.FixtureRequest) -> Iterator[str]:
    text = STEERING.encode()
    reply = {
        "error": b"-ERR %b\r\n" % text,
        "texts": b"*2\r\n" + b"$%d\r\n%b\r\n" % (len(text), text) * 2,
    }[request.param]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = server.accept()
                    threading.Thread(target=answer, args=(accepted, reply), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        # Else accept() would go on waiting.
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "room", "x"),
        ("listen", "room", "-v"),
        ("info", "room"),
        ("end", "room"),
        ("doctor",),
        ("doctor", "--json"),
    ],
)
def test_what_a_hostile_redis_says_can_not_steer_the_terminal(
    commands: Commands, hostile_redis: str, arguments: tuple[str, ...]
):
    done = commands.call(*arguments, "--redis", hostile_redis, STREAMY_SEND_TIMEOUT="0.3")

    shown = done.stdout + done.stderr
    assert shown
    assert all(c.isprintable() or c in "\n\t" for c in shown), shown


def test_json_holds_no_control_character(commands: Commands):
    commands.call("send", "room", STEERING)
    commands.call("end", "room")

    done = commands.run("listen", "room", "--replay", "all", "--json")

    first, _ = done.stdout.splitlines()
    assert first.isascii()
    assert first.isprintable()
    assert json.loads(first)["data"] == STEERING


def test_text_is_what_the_terminal_can_show(commands: Commands):
    commands.call("send", "room", "5 €")
    commands.call("end", "room")

    done = commands.run("listen", "room", "--replay", "all", PYTHONIOENCODING="latin-1")

    assert done.stdout.splitlines()[0].endswith("5 \\u20ac")


def test_goes_on_when_redis_comes_back(durable_redis_server: RedisServer, prefix: str):
    commands = Commands(durable_redis_server.url, prefix)
    process = commands.start("listen", "room", "--replay", "all", "--verbose")
    commands.wait_listening("room")
    commands.call("send", "room", "before")

    durable_redis_server.restart()
    commands.call("send", "room", "after")
    commands.call("end", "room")

    output, errors = process.communicate(timeout=30)
    assert [line.split("  ")[-1] for line in output.splitlines()] == ["before", "after", "{}"]
    assert process.returncode == 0
    assert "connection is lost" in errors


def test_ctrl_c_is_quiet(commands: Commands):
    process = commands.start("listen", "room")
    commands.wait_listening("room")

    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130


def test_a_pipe_that_breaks_is_quiet_even_when_nothing_comes(commands: Commands):
    process = commands.start("listen", "room", "--replay", "all")
    assert process.stdout
    assert process.stderr
    commands.call("send", "room", "x")
    assert process.stdout.readline().endswith("x\n")

    process.stdout.close()

    assert process.wait(20) == 141
    assert process.stderr.read() == ""


def test_a_pipe_that_nobody_has_read_is_quiet_as_well(commands: Commands):
    done = commands.shell("streamy-redis listen room | true")

    assert (done.returncode, done.stderr) == (141, "")


def test_head_ends_it(commands: Commands):
    commands.call("send", "room", stdin="a\nb\nc\n")

    done = commands.shell("streamy-redis listen room --replay all | head -1")

    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout.endswith("  message  a\n")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("streamy-redis listen room --replay all >&-", 0),
        ("streamy-redis send another <&-", 0),
        ("streamy-redis info nothing 2>&-", 5),
    ],
)
def test_what_is_closed_is_like_dev_null(commands: Commands, script: str, code: int):
    commands.call("end", "room")

    done = commands.shell(script)

    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("streamy-redis send room x > /dev/full", "No space left on device"),
        ("streamy-redis send room 0> /dev/null", "Bad file descriptor"),
    ],
)
def test_output_and_input_that_fail_are_one_line(commands: Commands, script: str, reason: str):
    failed = commands.shell(script)

    assert failed.returncode == 1
    assert failed.stderr == f"Error: standard input or output: {reason}\n"


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["colour", "NO_COLOR"])
def test_a_terminal_gets_colours_unless_it_wants_none(
    commands: Commands, variables: dict[str, str]
):
    commands.url = f"redis://127.0.0.1:{free_port()}/0"
    ours, its = pty.openpty()
    subprocess.run(
        [COMMAND, "doctor"], stdout=its, env={**commands.variables, **variables}, timeout=60
    )

    shown = os.read(ours, 4096).decode()

    os.close(ours)
    os.close(its)
    assert "problem" in shown
    assert ("\x1b[" in shown) == (not variables)


def test_info_shows_what_redis_holds(commands: Commands):
    event_id = commands.call("send", "room", "x").stdout.strip()

    text = commands.call("info", "room")
    found = json.loads(commands.call("info", "room", "--json").stdout)

    assert text.returncode == 0
    assert ["last_event_id", event_id] in [line.split() for line in text.stdout.splitlines()]
    assert (found["exists"], found["ended"], found["length"]) == (True, False, 1)


def test_info_and_delete_say_when_there_is_nothing(commands: Commands):
    commands.call("send", "room", "x")

    assert commands.call("delete", "room").returncode == 0
    assert commands.call("info", "room").returncode == 5
    again = commands.call("delete", "room")
    assert (again.returncode, again.stderr) == (5, "Error: there is no stream 'room'\n")


def test_an_ended_stream_is_an_exit_code_of_its_own(commands: Commands):
    assert commands.call("end", "room").returncode == 0

    for refused in (commands.call("end", "room"), commands.call("send", "room", "late")):
        assert (refused.returncode, refused.stdout) == (4, "")
        assert "ended" in refused.stderr


def test_redis_that_is_away_is_an_exit_code_of_its_own(commands: Commands):
    commands.url = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    # It waits for send_timeout.
    listening = commands.start("listen", "room")
    failed = {
        name: commands.call(name, "room", *(["x"] if name in ("send", "end") else []))
        for name in ("send", "end", "info", "delete")
    }
    output, errors = listening.communicate(timeout=20)
    failed["listen"] = subprocess.CompletedProcess([], listening.returncode, output, errors)

    for name, each in failed.items():
        assert (each.returncode, each.stdout) == (3, "")
        assert len(each.stderr.splitlines()) == 1
        assert "streamy-redis doctor" in each.stderr
        assert "secret" not in each.stderr
        assert ("--key " in each.stderr) == (name == "send")


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "", "x"],
        ["send", "room", "x", "--event", "stream-x"],
        ["send", "room", "x", "--retry", "-1"],
        ["send", "room", "x", "--history-ttl", "0"],
        ["send", "room", "x", "--prefix", "{"],
        ["send", "room", "x", "--redis", "http://127.0.0.1"],
        ["send", "room", "x", "--redis", "redis://127.0.0.1/0?no_such_setting=1"],
        ["send", "room", "x", "--redis", "memory://"],
        ["send", "room", "x", "--redis", "redis+sentinel://127.0.0.1"],
        ["send", "room", "x", "--redis", "rediss://127.0.0.1/0?ssl_cert_reqs=some"],
        ["send", "", "--quiet"],
        ["listen", "a\nb"],
        ["listen", "room", "--replay", "-1"],
        ["listen", "room", "--replay", "some"],
        ["listen", "room", "--last-event-id", "12"],
        ["listen"],
        ["no-such-command"],
        ["doctor", "ftp://127.0.0.1/"],
        ["doctor", "http://127.0.0.1:no/"],
        ["doctor", "http://127.0.0.1/", "-H", "no colon"],
        ["doctor", "http://127.0.0.1/", "-H", "cookie: session=…"],
        ["doctor", "http://127.0.0.1/", "--stream", ""],
        ["doctor", "http://user:secret@127.0.0.1/"],
        ["doctor", "http://[::1/"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line_and_2(commands: Commands, arguments: list[str]):
    refused = commands.call(*arguments)

    assert (refused.returncode, refused.stdout) == (2, "")
    [line] = refused.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "; see `streamy-redis" in line or "must" in line


def test_a_password_that_is_not_encoded_is_not_shown(commands: Commands):
    refused = commands.call("send", "room", "x", "--redis", "redis://user:pa/ss@127.0.0.1:6379/0")

    assert refused.returncode == 2
    assert "percent-encoded" in refused.stderr
    assert "'pa'" not in refused.stderr
    assert "ss@" not in refused.stderr


def test_without_a_command_it_shows_the_help(commands: Commands):
    shown = commands.call()

    assert (shown.returncode, shown.stdout) == (2, "")
    assert "Commands:" in shown.stderr


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_that_are_commands(commands: Commands, name: str):
    shown = commands.call(name, "--help")

    assert shown.returncode == 0
    assert f"streamy-redis {name}" in shown.stdout.partition("Examples:")[2]


def test_help_names_every_command(commands: Commands):
    shown = commands.call("--help").stdout

    assert all(f"\n  {name} " in shown for name in NAMES)
    # None is cut off.
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_makes_a_completion_script(commands: Commands, shell: str):
    script = commands.call(_STREAMY_REDIS_COMPLETE=f"{shell}_source").stdout

    assert "_STREAMY_REDIS_COMPLETE" in script
    words = {"COMP_WORDS": "streamy-redis do", "COMP_CWORD": "1" if shell != "fish" else "do"}
    completed = commands.call(_STREAMY_REDIS_COMPLETE=f"{shell}_complete", **words).stdout
    assert "doctor" in completed


def test_is_a_module_too(commands: Commands):
    command = [sys.executable, "-m", "streamy_redis", "send", "room", "x", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=commands.variables)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(commands.call("info", "room", "--json").stdout)["length"] == 1


@pytest.mark.parametrize(
    ("absent", "name", "extra"),
    [
        ("click", "send", "streamy-redis[cli]"),
        ("flask", "demo", "streamy-redis[cli,flask,memory]"),
        ("fakeredis", "demo", "streamy-redis[cli,flask,memory]"),
    ],
)
def test_says_which_extra_is_missing(absent: str, name: str, extra: str):
    # As in an environment without it: the name is known to have no module.
    code = (
        f"import sys; sys.modules['{absent}'] = None;"
        f"from streamy_redis.__main__ import main; sys.argv = ['streamy-redis', '{name}']; main()"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=VARIABLES
    )

    assert (failed.returncode, failed.stdout) == (2, "")
    [line] = failed.stderr.splitlines()
    assert line.startswith("Error: ")
    assert f"pip install '{extra}'" in line


def test_the_package_needs_neither_click_nor_a_framework():
    code = (
        "import sys, streamy_redis, streamy_redis.doctor;"
        "print({'click', 'flask', 'starlette', 'anyio'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout == "set()\n"


def test_the_variables_hold_for_fields_that_have_no_option(commands: Commands):
    assert commands.call("send", "room", "12345", STREAMY_MAX_EVENT_SIZE="5").returncode == 0

    refused = commands.call("send", "room", "123456", STREAMY_MAX_EVENT_SIZE="5")
    wrong = commands.call("info", "room", STREAMY_SEND_TIMEOUT="soon")

    assert "at most 5 bytes" in refused.stderr
    assert wrong.returncode == 2
    assert "STREAMY_SEND_TIMEOUT must be a number of seconds, not 'soon'" in wrong.stderr
