"""Checks a daemon with a real Home Assistant core: home_assistant_core.py PROGRAM (see tests/home-assistant)."""

import asyncio
import datetime
import itertools
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from homeassistant.auth import auth_manager_from_config, models
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry, entity_registry

TIMEOUT = 120
ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = str(pathlib.Path(sys.argv[1]).resolve())
work = pathlib.Path(tempfile.mkdtemp())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


MQTT, HTTP = free_port(), free_port()


class Program:
    """A process that is stopped and started again."""

    def __init__(self, name, *command):
        self.name, self.command, self.process = name, command, None

    def start(self):
        with (work / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=ROOT)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(TIMEOUT) is not None


def write_daemon_config(enabled):
    (work / "config.toml").write_text(f"""
node = "board"
[mqtt]
url = "mqtt://127.0.0.1:{MQTT}"
[models]
paths = ["{ROOT}/tests/golden/latent/bundles/sd", "{ROOT}/models/digits"]
[engine]
kind = "embedded"
[spool]
path = "{work}/spool"
[home_assistant]
enabled = {enabled}
""")


async def write_core_config(config):
    """Writes the configuration of a core with the MQTT integration, and returns an access token."""
    (config / ".storage").mkdir(parents=True)
    (config / "configuration.yaml").write_text(f"""
homeassistant:
  name: test
  time_zone: UTC
logger:
  default: warning
http:
  server_host: 127.0.0.1
  server_port: {HTTP}
api:
""")
    broker = {"broker": "127.0.0.1", "port": MQTT, "protocol": "5", "discovery": True, "discovery_prefix": "homeassistant"}
    entry = {
        "entry_id": "0123456789abcdef0123456789abcdef", "version": 1, "minor_version": 1, "domain": "mqtt", "title": "mqtt",
        "data": broker, "options": {}, "pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user",
        "unique_id": None, "disabled_by": None,
    }
    entries = {"version": 1, "minor_version": 1, "key": "core.config_entries", "data": {"entries": [entry]}}
    (config / ".storage" / "core.config_entries").write_text(json.dumps(entries))
    hass = HomeAssistant(str(config))
    await device_registry.async_load(hass)
    await entity_registry.async_load(hass)
    hass.auth = await auth_manager_from_config(hass, [{"type": "homeassistant"}], [])
    user = await hass.auth.async_create_user("test", group_ids=["system-admin"])
    refresh = await hass.auth.async_create_refresh_token(
        user, client_name="test", token_type=models.TOKEN_TYPE_LONG_LIVED_ACCESS_TOKEN,
        access_token_expiration=datetime.timedelta(days=1),
    )
    token = hass.auth.async_create_access_token(refresh)
    store = hass.auth._store
    await store._store.async_save(store._data_to_save())
    return token


def call(path, body=None):
    """Calls the REST API, and returns the response's bytes."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{HTTP}/api/{path}", data, headers), timeout=TIMEOUT).read()


def state(entity):
    """Returns an entity's state and attributes; None if there is no such entity, or no core."""
    try:
        found = json.loads(call(f"states/{entity}"))
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None, {}
    return found["state"], found["attributes"]


def wait(what, condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def wait_for(entity, *states):
    wait(f"{entity} is {state(entity)}, and not {states}", lambda: state(entity)[0] in states)


def act(action, entity=None, **data):
    domain, name = action.split(".")
    call(f"services/{domain}/{name}", data | ({} if entity is None else {"entity_id": entity}))


def entity(platform, name):
    return f"{platform}.denoised_board_{name}"


PICTURE, PREVIEW, JOB = entity("image", "picture"), entity("image", "preview"), entity("event", "job")
DRAW, CANCEL, PROMPT, MODEL = entity("button", "draw"), entity("button", "cancel"), entity("text", "prompt"), entity("select", "model")
STEPS, SEED, CLASS = entity("number", "steps"), entity("number", "seed"), entity("select", "class")


def next_event(action):
    """Returns the attributes of the next end of a job after an action."""
    before = state(JOB)[0]
    action()
    wait("no job has ended", lambda: state(JOB)[0] not in (before, None, "unavailable", "unknown"))
    return state(JOB)[1]


def draw():
    """Presses the button, and returns the picture's file and attributes once it has changed."""
    before = state(PICTURE)[0]
    event = next_event(lambda: act("button.press", DRAW))
    assert event["event_type"] == "finished", event
    wait("the picture does not change", lambda: state(PICTURE)[0] != before)
    wait("the facts are of another picture", lambda: state(PICTURE)[1].get("id") == event["id"])
    return call(f"image_proxy/{PICTURE}"), state(PICTURE)[1]


def set_number(name, value):
    act("number.set_value", name, value=value)
    wait(f"{name} is not {value}", lambda: float(state(name)[0] or "nan") == value)


def select(name, option):
    act("select.select_option", name, option=option)
    wait_for(name, option)


def unexpected_log_lines():
    """Returns what the core logs about MQTT, without what this release is known not to have."""
    lines = (config / "home-assistant.log").read_text().splitlines()
    about = [line for line in lines if "mqtt" in line.lower() and (" WARNING " in line or " ERROR " in line)]
    known = ("Integration notify is not supported", "Failed to connect to MQTT", "Disconnected from MQTT", "backup", "cloud")
    return [line for line in about if not any(text in line for text in known)]


write_daemon_config("true")
(work / "mosquitto.conf").write_text(
    f"listener {MQTT} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {work}/\n"
)
config = work / "core"
token = asyncio.run(write_core_config(config))
broker = Program("broker", "mosquitto", "-c", str(work / "mosquitto.conf"))
daemon = Program("daemon", PROGRAM, "run", "--config", str(work / "config.toml"))
core = Program("core", sys.executable, "-m", "homeassistant", "-c", str(config), "--skip-pip")
programs = [broker, daemon, core]


def check():
    # From nothing to a picture.
    start = time.monotonic()
    for program in programs:
        program.start()
    wait("no picture entity", lambda: state(DRAW)[0] not in (None, "unavailable"))
    select(MODEL, "digits")
    select(CLASS, "7")
    set_number(STEPS, 4)
    set_number(SEED, 42)
    first, facts = draw()
    print(f"from the start of broker, daemon and core to the first picture: {time.monotonic() - start:.0f} s")
    assert first[1:4] == b"PNG"
    wanted = {"model": "digits", "class": 7, "steps": 4, "seed": 42, "engine": "embedded"}
    assert wanted.items() <= facts.items(), facts
    wait("no preview", lambda: state(PREVIEW)[0] not in (None, "unknown", "unavailable"))
    assert call(f"image_proxy/{PREVIEW}")[1:4] == b"PNG"

    # The entities and their states.
    assert state(PROMPT)[0] == "unavailable", state(PROMPT)
    assert state(MODEL)[1]["options"] == ["sd", "digits"]
    assert state(CLASS)[1]["options"] == ["no class", *map(str, range(10))]
    assert (state(SEED)[1]["min"], state(SEED)[1]["max"]) == (-1, 2**53 - 1)
    assert state(entity("sensor", "state"))[0] == "ready"
    wait_for(entity("sensor", "queue"), "0")
    assert state(entity("sensor", "provider"))[0] not in ("unknown", None)
    assert float(state(entity("sensor", "last_duration"))[0]) > 0
    assert 0 < int(state(entity("sensor", "progress"))[0]) <= 100
    assert state(entity("binary_sensor", "fallback_provider"))[0] == "off"

    # Settings as users write them.
    set_number(SEED, -1)
    other, facts = draw()
    assert other != first and facts["seed"] >= 0
    set_number(SEED, 2**53 - 1)
    assert draw()[1]["seed"] == 2**53 - 1
    set_number(entity("number", "guidance"), 2.5)
    assert draw()[1]["guidance"] == 2.5
    select(CLASS, "no class")
    assert draw()[1]["class"] is None
    select(MODEL, "sd")
    wait(f"the prompt is {state(PROMPT)}", lambda: state(PROMPT)[0] not in ("unavailable", None))
    assert state(CLASS)[0] == "unavailable", state(CLASS)
    set_number(STEPS, 2)
    for prompt in ['"a fox" & \\ <b>\'s {{ 1 }}', "ein Füchslein 🦊", "x" * 255]:
        act("text.set_value", PROMPT, value=prompt)
        wait_for(PROMPT, prompt)
        assert draw()[1]["prompt"] == prompt
    long = "a red fox in the snow, " * 50
    act("mqtt.publish", topic="denoised/board/home_assistant/settings/set", payload=json.dumps({"prompt": long}), qos=1)
    shown = long[:254] + "…"
    wait_for(PROMPT, shown)
    act("text.set_value", PROMPT, value=shown)
    assert draw()[1]["prompt"] == long

    # That of the first model.
    wait("no time per evaluation", lambda: state(entity("sensor", "time_per_evaluation"))[0] not in ("unknown", None))

    # A wrong setting, and a cancelled job.
    topic = "denoised/board/home_assistant/settings/set"
    event = next_event(lambda: act("mqtt.publish", topic=topic, payload='{"steps": 0}', qos=1))
    assert (event["event_type"], event["field"]) == ("failed", "steps"), event
    select(MODEL, "digits")
    set_number(STEPS, 900)
    progress = entity("sensor", "progress")
    act("button.press", DRAW)
    wait("the job does not run", lambda: 0 < int(state(progress)[0]) < 100)
    event = next_event(lambda: act("button.press", CANCEL))
    assert event["event_type"] == "cancelled", event
    set_number(STEPS, 4)
    set_number(SEED, 42)
    set_number(entity("number", "guidance"), 2)
    select(CLASS, "7")

    # Restarts of each one, and of all three in every order.
    before = state(JOB)[0]
    for program in programs:
        program.stop()
        if program is not core:
            wait_for(DRAW, "unavailable")
        program.start()
        check_after_restart()
    for order in itertools.permutations(programs):
        for program in reversed(order):
            program.stop()
        for program in order:
            program.start()
        check_after_restart()
    assert draw()[0] == first
    assert state(JOB)[0] > before

    # The registry has the entities once, with the ids of this node.
    core.stop()
    registry = json.loads((config / ".storage" / "core.entity_registry").read_text())["data"]["entities"]
    ids = {found["entity_id"]: found["unique_id"] for found in registry if found["platform"] == "mqtt"}
    assert len(ids) >= 19 and len(set(ids.values())) == len(ids), ids
    assert ids[PICTURE] == "denoised_board_picture" and not any("_2" in name for name in ids), ids
    devices = json.loads((config / ".storage" / "core.device_registry").read_text())["data"]["devices"]
    assert [device["name"] for device in devices] == ["denoised board"], devices
    core.start()
    check_after_restart()
    assert not unexpected_log_lines(), "\n".join(unexpected_log_lines())

    # Nothing is left once it is disabled.
    write_daemon_config("false")
    daemon.stop()
    daemon.start()
    wait("the entities are still there", lambda: state(DRAW)[0] is None and state(PICTURE)[0] is None)
    core.stop()
    registry = json.loads((config / ".storage" / "core.entity_registry").read_text())["data"]["entities"]
    assert not [found for found in registry if found["platform"] == "mqtt"], registry


def check_after_restart():
    """Draws the first picture again, with the settings that it had."""
    wait("the button is not available", lambda: state(DRAW)[0] not in (None, "unavailable"))
    wait_for(CLASS, "7")
    wait("the settings are not those before the restart", lambda: (state(STEPS)[0], state(SEED)[0]) == ("4", "42"))
    assert draw()[1]["class"] == 7


try:
    check()
except BaseException:
    for program in programs:
        print(f"--- {program.name}", *(work / f"{program.name}.log").read_text(errors="replace").splitlines()[-15:], sep="\n")
    log = config / "home-assistant.log"
    print("--- core's log", *(log.read_text().splitlines()[-30:] if log.exists() else []), sep="\n")
    raise
finally:
    for program in programs:
        if program.process and program.process.poll() is None:
            program.process.kill()
            program.process.wait()
subprocess.run(["rm", "-rf", str(work)], check=True)
print("Home Assistant 2024.3.3: all checks passed")
