"""Checks a daemon with OpenAI's client and Prometheus' parser: openai_client.py URL TOKEN_FILE (see tests/openai)."""

import base64
import pathlib
import re
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib

import openai
from prometheus_client.parser import text_string_to_metric_families

url, token = sys.argv[1], pathlib.Path(sys.argv[2]).read_text().strip()


def png(width, height):
    """A grey PNG file."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(128 for _ in range(3 * width)) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def health():
    try:
        return urllib.request.urlopen(f"{url}/healthz").status
    except (urllib.error.HTTPError, urllib.error.URLError) as error:
        return getattr(error, "code", 0)


deadline = time.monotonic() + 60
while health() != 200:
    assert time.monotonic() < deadline, "the daemon does not become ready"
    time.sleep(0.1)

client = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)

assert [model.id for model in client.models.list()] == ["sd", "digits"]
assert client.models.retrieve("digits").owned_by == "denoised"

image = client.images.generate(prompt="a red fox", size="32x32", extra_body={"steps": 2, "seed": 7}).data[0]
file = base64.b64decode(image.b64_json)
assert file[1:4] == b"PNG"
assert (image.denoised["seed"], image.denoised["steps"], image.denoised["prompt"]) == (7, 2, "a red fox")

response = client.images.generate(
    model="digits", prompt="", n=2, output_format="jpeg", output_compression=80, quality="high", user="me",
    response_format="b64_json", extra_body={"class": 7, "steps": 4},
)
assert response.output_format == "jpeg" and response.created >= 0
assert [base64.b64decode(image.b64_json)[:3] for image in response.data] == [b"\xff\xd8\xff"] * 2
assert response.data[1].denoised["seed"] == response.data[0].denoised["seed"] + 1

response = client.images.edit(
    image=("fox.png", png(32, 32), "image/png"), prompt="a fox", extra_body={"strength": 0.5, "steps": 4, "seed": 1}
)
assert response.data[0].denoised["strength"] == 0.5 and response.data[0].denoised["size"] == [32, 32]

# Events: previews, and then the picture that comes without them too.
request = {"prompt": "a red fox", "size": "32x32", "extra_body": {"steps": 4, "seed": 7}}
expected = client.images.generate(**request).data[0].b64_json
events = list(client.images.generate(**request, stream=True, partial_images=3))
assert [event.type.split(".")[1] for event in events] == ["partial_image"] * 3 + ["completed"], events
assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
assert events[3].b64_json == expected and events[3].size == "32x32"

for error, parameters, status, param in [
    (openai.NotFoundError, {"model": "dall-e-3", "prompt": "a"}, 404, "model"),
    (openai.BadRequestError, {"prompt": "a", "n": 11}, 400, "n"),
    (openai.BadRequestError, {"prompt": "a", "size": "1x1"}, 400, "size"),
    (openai.BadRequestError, {"prompt": "a", "response_format": "url"}, 400, "response_format"),
    (openai.BadRequestError, {"prompt": "a", "stream": True, "partial_images": 4}, 400, "partial_images"),
    (openai.BadRequestError, {"prompt": "a", "extra_body": {"colour": "red"}}, 400, "colour"),
]:
    try:
        client.images.generate(**parameters)
        raise SystemExit(f"{parameters} is no error")
    except error as found:
        assert (found.status_code, found.param) == (status, param), found
try:
    openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
    raise SystemExit("a wrong token is no error")
except openai.AuthenticationError as found:
    assert found.code == "invalid_api_key", found

request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
text = urllib.request.urlopen(request).read().decode()
samples = {
    (sample.name, *sorted(sample.labels.values())): sample.value
    for family in text_string_to_metric_families(text)
    for sample in family.samples
}
assert samples["denoised_jobs_total", "finished", "sd"] == 4, samples
assert samples["denoised_jobs_total", "digits", "finished"] == 1, samples
assert samples["denoised_images_total", "digits"] == 2, samples
assert samples["denoised_job_duration_seconds_count", "sd"] == 4, samples

# The Python examples of the document, with its address, token file and size replaced.
document = pathlib.Path("docs/http.md").read_text()
examples = re.findall(r"```python\n(.*?)```", document, re.S)
assert len(examples) == 2, len(examples)
for example in examples:
    example = example.replace("http://127.0.0.1:8188", url).replace("512x512", "32x32")
    example = example.replace('api_key="none"', f'api_key="{token}"').replace('open("fox.png", "rb")', '("fox.png", png(32, 32))')
    example = re.sub(r'open\("(.*?)", "wb"\)', r'open("/dev/null", "wb")', example)
    exec(example, {"png": png})

print("openai", openai.__version__, "and prometheus_client: all checks passed")
