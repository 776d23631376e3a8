"""Uses the page of a daemon in Chromium: page_browser.py URL TOKEN_FILE [FOLDER] (see tests/page)."""

import base64
import io
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

from axe_core_python.selenium import Axe
from PIL import Image, ImageChops, ImageStat
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

url, token = sys.argv[1], pathlib.Path(sys.argv[2]).read_text().strip()
folder = pathlib.Path(sys.argv[3]) if sys.argv[3] else None
TIMEOUT = 60

# The sources of the picture, one after the other.
WATCH = """
window.sources = [];
new MutationObserver(() => window.sources.push(document.getElementById("picture").src))
  .observe(document.getElementById("picture"), {attributes: true, attributeFilter: ["src"]});
"""


def ask(path, body=None):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode() if body else None, headers)
    return json.load(urllib.request.urlopen(request, timeout=TIMEOUT))


def wait_until_ready():
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return ask("healthz")
        except (urllib.error.HTTPError, urllib.error.URLError):
            assert time.monotonic() < deadline, "the daemon does not become ready"
            time.sleep(0.1)


def browser(width, height, scheme):
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                           {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    return driver


class Page:
    """The page in a browser."""

    def __init__(self, driver):
        self.driver = driver
        driver.get(url)

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def wait(self, condition):
        return WebDriverWait(self.driver, TIMEOUT, 0.05).until(lambda _: condition())

    def fill(self, name, text):
        self.find(name).clear()
        self.find(name).send_keys(text)

    def press(self, form):
        self.driver.find_element(By.CSS_SELECTOR, f"#{form} button").click()

    def unlock(self):
        self.wait(lambda: self.find("access").is_displayed())
        assert not self.find("job").is_displayed()
        self.fill("token", "0123456789abcdef-wrong")
        self.press("access")
        self.wait(lambda: "the token is not the one in http.token_file" in self.find("message").text)
        self.fill("token", token)
        self.press("access")
        self.wait(lambda: self.find("job").is_displayed() and self.find("phase").text == "ready")
        assert not self.find("access").is_displayed()

    def draw(self, model, fields):
        Select(self.find("model")).select_by_visible_text(model)
        details = self.driver.find_element(By.CSS_SELECTOR, "#job details")
        if details.get_attribute("open") is None:
            details.find_element(By.TAG_NAME, "summary").click()
        for name, text in fields.items():
            if self.find(name).tag_name == "select":
                Select(self.find(name)).select_by_visible_text(text)
            else:
                self.fill(name, text)
        self.driver.execute_script(WATCH)
        self.find("draw").click()
        self.wait(lambda: self.find("draw").is_enabled())
        assert self.find("message").text == "", self.find("message").text
        return self.driver.execute_script("return window.sources")

    def shows(self, file):
        """Whether the picture on the screen is that of a file."""
        picture = self.find("picture")
        self.driver.execute_script("arguments[0].scrollIntoView()", picture)
        size = self.driver.execute_script("return [arguments[0].naturalWidth, arguments[0].naturalHeight]", picture)
        expected = Image.open(io.BytesIO(file)).convert("RGB")
        assert tuple(size) == expected.size, size
        seen = Image.open(io.BytesIO(picture.screenshot_as_png)).convert("RGB")
        # Corners are rounded and edges are blended.
        small = seen.resize(expected.size, Image.BOX)
        difference = ImageStat.Stat(ImageChops.difference(small, expected)).mean
        assert max(difference) < 12, difference

    def background(self):
        return Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("L").getpixel((1, 1))

    def check(self, name):
        """Nothing is wider than the screen, and axe finds nothing that hinders somebody."""
        width = self.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], width
        violations = Axe().run(self.driver)["violations"]
        assert not violations, json.dumps(violations, indent=1)
        if folder:
            self.driver.save_screenshot(folder / f"{name}.png")


def use(page, name):
    page.unlock()
    page.check(f"{name}-form")
    expected = ask("v1/images/generations", {"model": "sd", "prompt": "a red fox", "steps": 4, "seed": "7", "size": "32x32"})
    file = expected["data"][0]["b64_json"]
    sources = page.draw("sd", {"prompt": "a red fox", "steps": "4", "seed": "7", "size": "32x32"})
    # Previews, and then the picture that a request draws.
    assert len(sources) >= 2 and sources[-1] == f"data:image/png;base64,{file}", len(sources)
    assert len(set(sources)) == len(sources), "a preview is shown twice"
    page.shows(base64.b64decode(file))
    assert page.find("picture").get_attribute("alt") == "a red fox"
    assert page.find("caption").text == "a red fox (seed 7)"
    download = page.find("download")
    assert (download.get_attribute("download"), download.get_attribute("href")) == ("sd-7.png", sources[-1])
    page.find("again").click()
    page.wait(lambda: page.find("message").text == "Replayed: the same bytes.")

    page.draw("digits", {"class": "3", "seed": "5", "steps": "6"})
    assert not page.find("prompt").is_displayed() and page.find("class").is_displayed()
    expected = ask("v1/images/generations", {"model": "digits", "class": 3, "steps": 6, "seed": "5"})
    page.shows(base64.b64decode(expected["data"][0]["b64_json"]))
    assert [image.get_attribute("alt") for image in page.driver.find_elements(By.CSS_SELECTOR, "#earlier img")] == [
        "digits: 3", "a red fox"]
    page.driver.find_elements(By.CSS_SELECTOR, "#earlier button")[1].click()
    assert page.find("picture").get_attribute("src") == sources[-1]

    page.fill("steps", "100000")
    page.find("draw").click()
    page.wait(lambda: page.find("message").text.startswith("Not drawn: steps is 100000, but must lie between 1 and"))
    # The last picture is there again.
    assert page.find("picture").get_attribute("src") == sources[-1]
    # The state is asked for once a second.
    page.wait(lambda: page.find("queue").text == "0 jobs" and page.find("provider").text == "cpu")
    page.check(name)


wait_until_ready()
for name, width, height, scheme, is_expected in [
    ("phone", 390, 844, "dark", lambda value: value < 64),
    ("desktop", 1280, 900, "light", lambda value: value > 192),
]:
    driver = browser(width, height, scheme)
    try:
        page = Page(driver)
        use(page, name)
        assert is_expected(page.background()), (scheme, page.background())
        severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE" and "401" not in entry["message"]
                  and "400" not in entry["message"]]
        assert not severe, severe
    finally:
        driver.quit()
print("the page: all checks passed")
