#!/usr/bin/env python3
"""Tests the page in a headless Chromium.

    run.py              against a mock server
    run.py URL [KEY]    the conversation of test_server.py against a running pleiad serve
"""
import sys
import unittest

import test_server
from webdriver import available


def main():
    if not available():
        print("skipped: the page is tested where chromium and chromedriver are (Debian: chromium, chromium-driver)")
        return 0
    loader = unittest.defaultTestLoader
    if len(sys.argv) > 1:
        test_server.ServerTest.address, test_server.ServerTest.key = (sys.argv[1:] + [None])[:2]
        suite = loader.loadTestsFromTestCase(test_server.ServerTest)
    else:
        suite = loader.loadTestsFromNames(["test_page", "test_layout", "test_markdown"])
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    bad = len(result.failures) + len(result.errors)
    print("cases:", result.testsRun - bad, bad)
    return 0 if result.wasSuccessful() else 1


sys.exit(main())
