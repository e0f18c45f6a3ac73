"""send, end, listen, info and delete: what they do, print and answer a shell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

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
    done = commands.run("send", "room", "hällo\nworld", "--event", "greeting")

    assert (done.returncode, done.stderr) == (0, "")
    assert history(streams, "room") == [(done.stdout.strip(), "greeting", "hällo\nworld")]


def test_sends_each_line_of_standard_input(commands: Commands, streams: StreamManager):
    done = commands.run("send", "room", stdin="a\r\n\nb b\nthe last")

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


def test_a_key_makes_repeating_harmless(commands: Commands, streams: StreamManager):
    for _ in range(2):
        assert commands.run("send", "room", "once", "--key", "k").returncode == 0
        assert commands.run("send", "room", "--key", "l", stdin="a\na\n").returncode == 0

    assert [data for _, _, data in history(streams, "room")] == ["once", "a", "a"]


def test_keeps_the_history_that_it_is_told(commands: Commands, streams: StreamManager):
    commands.run("send", "room", "--history-length", "2", stdin="a\nb\nc\n")

    assert streams.info("room").length == 2


@pytest.mark.parametrize("data", ["{", "NaN", ""])
def test_json_is_checked_when_asked(commands: Commands, streams: StreamManager, data: str):
    refused = commands.run("send", "room", data, "--json")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Error: data must be JSON")
    assert commands.run("send", "room", '{"a": [1]}', "--json").returncode == 0
    assert [sent for _, _, sent in history(streams, "room")] == ['{"a": [1]}']


def test_listens_until_the_end(commands: Commands):
    process = commands.start("listen", "room")
    commands.wait_listening("room")
    # The subscription begins a moment after Redis counts it.
    Deadline(20).until(lambda: _hears(commands, process), "an event is heard")
    commands.run("end", "room", "bye")

    rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest.splitlines()[-1].endswith("  stream-end  bye")
    assert errors == ""


def _hears(commands: Commands, process: subprocess.Popen[str]) -> str:
    assert process.stdout
    commands.run("send", "room", "x")
    return process.stdout.readline()


def test_prints_json_lines(commands: Commands):
    commands.run("send", "room", stdin="a\nb\n")
    commands.run("end", "room", "é")

    done = commands.run("listen", "room", "--json", "--replay", "1")

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(e["kind"], e["data"], e["stream_id"]) for e in events] == [
        ("event", "b", "room"),
        ("end", "é", "room"),
    ]


def test_begins_behind_an_event(commands: Commands):
    first, *_ = commands.run("send", "room", stdin="a\nb\nc\n").stdout.split()
    commands.run("end", "room")

    done = commands.run("listen", "room", "--last-event-id", first)

    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == ["b", "c", ""]


def test_text_can_not_steer_the_terminal(commands: Commands):
    commands.run("send", "room", "red\x1b[31m\nsecond")
    commands.run("end", "room")

    done = commands.run("listen", "room", "--replay", "all")

    assert "\x1b" not in done.stdout
    first, second, _ = done.stdout.splitlines()
    assert first.endswith("message  red\\x1b[31m")
    assert second.startswith(" ")
    assert second.strip() == "second"


def test_goes_on_when_redis_comes_back(durable_redis_server: RedisServer, prefix: str):
    commands = Commands(durable_redis_server.url, prefix)
    process = commands.start("listen", "room", "--replay", "all", "--verbose")
    commands.wait_listening("room")
    commands.run("send", "room", "before")

    durable_redis_server.restart()
    commands.run("send", "room", "after")
    commands.run("end", "room")

    output, errors = process.communicate(timeout=30)
    assert [line.split("  ")[-1] for line in output.splitlines()] == ["before", "after", ""]
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
    commands.run("send", "room", "x")
    assert process.stdout.readline().endswith("x\n")

    process.stdout.close()

    assert process.wait(20) == 141
    assert process.stderr.read() == ""


def test_info_shows_what_redis_holds(commands: Commands):
    event_id = commands.run("send", "room", "x").stdout.strip()

    text = commands.run("info", "room")
    found = json.loads(commands.run("info", "room", "--json").stdout)

    assert text.returncode == 0
    assert ["last_event_id", event_id] in [line.split() for line in text.stdout.splitlines()]
    assert (found["exists"], found["ended"], found["length"]) == (True, False, 1)


def test_info_and_delete_say_when_there_is_nothing(commands: Commands):
    commands.run("send", "room", "x")

    assert commands.run("delete", "room").returncode == 0
    assert commands.run("info", "room").returncode == 5
    again = commands.run("delete", "room")
    assert (again.returncode, again.stderr) == (5, "Error: there is no stream 'room'\n")


def test_an_ended_stream_is_an_exit_code_of_its_own(commands: Commands):
    assert commands.run("end", "room").returncode == 0

    for refused in (commands.run("end", "room"), commands.run("send", "room", "late")):
        assert (refused.returncode, refused.stdout) == (4, "")
        assert "ended" in refused.stderr


@pytest.mark.parametrize("name", ["send", "end", "listen", "info", "delete"])
def test_redis_that_is_away_is_an_exit_code_of_its_own(commands: Commands, name: str):
    commands.url = f"redis://user:secret@127.0.0.1:{free_port()}/0"

    failed = commands.run(name, "room", *(["x"] if name in ("send", "end") else []))

    assert (failed.returncode, failed.stdout) == (3, "")
    assert len(failed.stderr.splitlines()) == 1
    assert "streamy-redis doctor" in failed.stderr
    assert "secret" not in failed.stderr
    assert ("--key " in failed.stderr) == (name == "send")


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
        ["listen", "room", "--replay", "-1"],
        ["listen", "room", "--replay", "some"],
        ["listen"],
        ["no-such-command"],
        ["doctor", "ftp://127.0.0.1/"],
        ["doctor", "http://127.0.0.1:no/"],
        ["doctor", "http://127.0.0.1/", "-H", "no colon"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line_and_2(commands: Commands, arguments: list[str]):
    refused = commands.run(*arguments)

    assert (refused.returncode, refused.stdout) == (2, "")
    [line] = refused.stderr.splitlines()
    assert line.startswith("Error: ")


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_that_are_commands(commands: Commands, name: str):
    shown = commands.run(name, "--help")

    assert shown.returncode == 0
    assert f"streamy-redis {name}" in shown.stdout.partition("Examples:")[2]


def test_help_names_every_command(commands: Commands):
    shown = commands.run("--help").stdout

    assert all(f"\n  {name} " in shown for name in NAMES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_makes_a_completion_script(commands: Commands, shell: str):
    script = commands.run(_STREAMY_REDIS_COMPLETE=f"{shell}_source").stdout

    assert "_STREAMY_REDIS_COMPLETE" in script
    words = {"COMP_WORDS": "streamy-redis do", "COMP_CWORD": "1" if shell != "fish" else "do"}
    completed = commands.run(_STREAMY_REDIS_COMPLETE=f"{shell}_complete", **words).stdout
    assert "doctor" in completed


def test_is_a_module_too(commands: Commands):
    command = [sys.executable, "-m", "streamy_redis", "send", "room", "x", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=commands.variables)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(commands.run("info", "room", "--json").stdout)["length"] == 1


def test_says_which_extra_is_missing():
    # As in an environment without click: the name is known to have no module.
    code = (
        "import sys; sys.modules['click'] = None;"
        "from streamy_redis.__main__ import main; sys.argv = ['streamy-redis']; main()"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=VARIABLES
    )

    assert failed.returncode == 2
    assert failed.stderr == "Error: install the extra: pip install 'streamy-redis[cli]'\n"
    assert COMMAND.exists()
