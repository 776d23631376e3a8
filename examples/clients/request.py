#!/usr/bin/env python3
"""Draws pictures: request.py NODE REQUEST DIRECTORY [HOST [PORT]]. Needs paho-mqtt 2.

Publishes one request, prints its progress, saves its images and prints its result. Exits with 1 if there is an error.

    python3 request.py board '{"class": 7, "seed": 42, "count": 2}' pictures
"""

import json
import pathlib
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# The longest time without an answer, in seconds.
TIMEOUT_S = 300
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "application/x-npy": "npy"}


def draw(node, request, directory, host="localhost", port=1883):
    """Returns the result of a request in a dictionary. An error is a RuntimeError."""
    answers = f"answers/{uuid.uuid4()}"
    request = {"id": uuid.uuid4().hex, **request}
    root = f"denoised/{node}"
    arrived = queue.Queue(maxsize=1000)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = lambda _client, _data, message: arrived.put(message)
    client.on_connect = lambda client, *_: client.subscribe([(answers, 1), (f"{root}/progress/{request['id']}", 0)])
    # The daemon may answer as soon as it has the request.
    client.on_subscribe = lambda *_: arrived.put(None)
    client.connect(host, port)
    client.loop_start()
    try:
        while (message := arrived.get(timeout=TIMEOUT_S)) is not None:
            pass
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = answers
        properties.CorrelationData = request["id"].encode()
        client.publish(f"{root}/request", json.dumps(request), qos=1, properties=properties)
        while True:
            message = arrived.get(timeout=TIMEOUT_S)
            if message is None:  # connected again
                continue
            user = dict(message.properties.UserProperty)
            match user["type"]:
                case "progress":
                    progress = json.loads(message.payload)
                    print(f"step {progress['step']} of {progress['of']}", file=sys.stderr)
                case "image":
                    ending = ENDINGS[message.properties.ContentType]
                    (directory / f"{request['id']}-{user['index']}.{ending}").write_bytes(message.payload)
                case "result":
                    return json.loads(message.payload)
                case "error":
                    raise RuntimeError(json.loads(message.payload)["message"])
    except queue.Empty:
        raise RuntimeError(f"{node} has not answered for {TIMEOUT_S} seconds") from None
    finally:
        client.loop_stop()
        client.disconnect()


def main():
    node, request, directory, *address = sys.argv[1:]
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    host, port = [*address, *["localhost", "1883"][len(address) :]]
    try:
        print(json.dumps(draw(node, json.loads(request), directory, host, int(port)), indent=2))
    except RuntimeError as error:
        sys.exit(f"request.py: {error}")


if __name__ == "__main__":
    main()
