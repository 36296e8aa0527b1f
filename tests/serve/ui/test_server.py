"""The page against a running server, with whatever model it has: see run.py."""
import unittest

from page_test import IDLE, LAST, READY
from webdriver import Browser


class ServerTest(unittest.TestCase):
    address = key = None

    def setUp(self):
        self.refused = 0  # requests that the server is to refuse
        if self.address is None:
            self.skipTest("no server's address was given")
        self.browser = Browser()
        self.addCleanup(self.browser.close)
        self.browser.open(self.address)
        if self.key:
            self.browser.wait("document.querySelector('#key').open")
            self.browser.type("#key-value", self.key)
            self.browser.press("Enter")
        self.browser.wait(f"{READY} && document.querySelector('#meter.known')")

    def tearDown(self):
        expected = self.refused + (1 if self.key else 0)
        said = [text for level, text in self.browser.console() if level in ("SEVERE", "WARNING")]
        self.assertEqual(expected, len(said), said)

    def send(self, text, seconds=120):
        count = self.browser.run("return document.querySelectorAll('.message.assistant').length")
        self.browser.type("#prompt", text)
        self.browser.press("Enter")
        more = f"document.querySelectorAll('.message.assistant').length > {count}"
        self.browser.wait(f"{more} && {IDLE}", seconds=seconds)
        self.assertIsNone(self.browser.run(f"return {LAST}.querySelector('.problem:not(.length)')?.innerText"))
        return self.browser.run(f"return {LAST}.querySelector('.body').innerText")

    def note(self):
        return self.browser.run(f"return {LAST}.querySelector('.note').innerText")

    def choose_path(self, path):
        self.browser.run("""const select = document.querySelector('#path');
            select.value = arguments[0];
            select.dispatchEvent(new Event('change'));""", path)

    def test_conversation(self):
        self.assertTrue(self.send("What is the capital of France?"))
        self.assertRegex(self.note(), r"\w+ \(.+\) · [\d.]+ tokens/s · \d+ tokens")
        self.assertTrue(self.send("And of Spain?"))
        used = self.browser.run("return Number(document.querySelector('#meter').getAttribute('aria-valuenow'))")
        self.assertGreater(used, 10)
        self.refused = 1 if self.key else 0  # the key is not kept
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && document.querySelectorAll('.message').length === 4")

    def test_paths(self):
        paths = self.browser.run("return [...document.querySelector('#path').options].map((option) => option.value)")
        self.assertIn("auto", paths)
        for path in paths[1:]:
            self.choose_path(path)
            self.send("What is the capital of Italy?")
            self.assertTrue(self.note().startswith(path), self.note())

    def test_stop_and_again(self):
        self.browser.type("#prompt", "Tell me a long story.")
        self.browser.press("Enter")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText.length > 0", seconds=60)
        self.browser.press("Escape")
        self.browser.wait(IDLE)
        self.browser.run(f"{LAST}.querySelector('[aria-label=\"Answer again\"]').click()")
        self.browser.wait(f"{IDLE} && {LAST}.innerText.includes('2 / 2')", seconds=120)

    def test_context_is_full(self):
        context = self.browser.run("return Number(document.querySelector('#meter').getAttribute('aria-valuemax'))")
        if context > 4096:
            self.skipTest("the context is too large to be filled here")
        self.refused = 1
        self.send("Short question?")
        self.browser.run("document.querySelector('#prompt').value = 'word '.repeat(arguments[0])", context * 2)
        self.browser.type("#prompt", "end")
        self.browser.press("Enter")
        self.browser.wait(f"{LAST}?.querySelector('.problem.context')", seconds=60)


if __name__ == "__main__":
    unittest.main()
