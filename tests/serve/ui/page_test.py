"""What the tests of the page share: one browser and one mock server for all, a clean page for each test."""
import json
import pathlib
import re
import time
import unittest

from mock_server import MockServer
from webdriver import Browser, available

HERE = pathlib.Path(__file__).resolve().parent
READY = "document.documentElement.dataset.ready"
IDLE = "!document.querySelector('.message.live')"
LAST = "[...document.querySelectorAll('.message.assistant')].at(-1)"


def sample():
    return (HERE / "sample.md").read_text()


def pieces_of(text):
    """About as a tokenizer cuts it."""
    return re.findall(r"\s*\w+|\s*[^\w\s]|\s+", text)


class Shared:
    browser = mock = None

    @classmethod
    def start(cls):
        if not available():
            raise unittest.SkipTest("the page is not tested: no chromium and chromedriver here "
                                    "(Debian's chromium and chromium-driver)")
        if cls.browser is None:
            cls.mock = MockServer()
            cls.browser = Browser()
            unittest.addModuleCleanup(cls.stop)

    @classmethod
    def stop(cls):
        cls.browser.close()
        cls.mock.close()
        cls.browser = cls.mock = None


class PageTest(unittest.TestCase):
    """complaints: what the console may say in a test."""

    complaints = None

    @classmethod
    def setUpClass(cls):
        Shared.start()
        cls.browser, cls.mock = Shared.browser, Shared.mock

    def setUp(self):
        self.mock.reset()
        self.complaints = None
        browser = self.browser
        browser.resize(1200, 800)
        browser.media()
        browser.open(self.mock.address + "favicon.svg")
        browser.devtools("Storage.clearDataForOrigin", origin=self.mock.address.rstrip("/"), storageTypes="all")
        browser.run("sessionStorage.clear()")
        self.load()

    def load(self):
        self.browser.console()
        self.browser.open(self.mock.address)
        self.browser.wait(READY)

    def tearDown(self):
        said = [text for level, text in self.browser.console() if level in ("SEVERE", "WARNING")]
        bad = [text for text in said if self.complaints is None or not re.search(self.complaints, text)]
        self.assertEqual([], bad, "the console complains")

    def send(self, text):
        self.browser.type("#prompt", text)
        self.browser.press("Enter")

    def ask(self, text, *answers):
        """Sends and waits for the whole answer; its text."""
        self.mock.answers.extend(answers)
        count = self.count(".message.assistant")
        self.send(text)
        self.browser.wait(f"{LAST} && document.querySelectorAll('.message.assistant').length > {count} && {IDLE}")
        return self.last()

    def count(self, selector):
        return self.browser.run("return document.querySelectorAll(arguments[0]).length", selector)

    def last(self):
        return self.browser.run(f"return {LAST}.querySelector('.body').innerText")

    def note(self):
        return self.browser.run(f"return {LAST}.querySelector('.note').innerText")

    def messages(self):
        return self.browser.run("return [...document.querySelectorAll('.message .body')].map((body) => body.innerText)")

    def sent(self):
        """The last request's messages, as (role, content)."""
        return [(turn["role"], turn["content"]) for turn in self.mock.requests[-1]["messages"]]

    def wait_for(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "never came true")
            time.sleep(0.03)

    def put_chat(self, count, text="Message"):
        """Stores a chat of count messages and opens it."""
        messages = [{"id": f"m{i}", "parent": f"m{i - 1}" if i else None, "role": "user" if i % 2 == 0 else "assistant",
                     "text": f"{text} {i}", "order": i} for i in range(count)]
        chats = {"format": "pleiad-chats", "version": 1, "chats": [{"meta": {"id": "long", "title": "Long"},
                                                                    "messages": messages}]}
        self.browser.run("""return import('/store.js').then(async ({ Store }) => {
            const store = await Store.open();
            await store.importAll(arguments[0]);
        })""", json.dumps(chats))
        self.browser.open(self.mock.address + "#long")
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && document.querySelector('.message')")
