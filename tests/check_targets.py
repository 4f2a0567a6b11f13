#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that targets.py tells a program that fails from one that does well.

    check_targets.py [-v]

The programs are scripts that stand in for those of a build, and Python is what runs them.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import unittest
from unittest import mock

import targets

# What good programs print; a test replaces one of them.
GOOD = {
    "selfcheck": "print('10 passed, 0 failed')",
    "replay": f"""
import json, sys
events = {dict((trace, targets.trace_events(trace)) for trace in targets.TRACES)}
threads = {dict((trace, targets.trace_threads(trace)) for trace in targets.TRACES)}
trace = sys.argv[1]
print(json.dumps({{'events': events[trace],
                   'threads': threads[trace] if '--threads' in sys.argv else 1,
                   'failed_allocations': 0, 'failed_checks': 0, 'reports': 0}}))
""",
    "engine": "print('{\"frames\": 500, \"faults\": 0}')",
    "workload": "print('{\"failed_checks\": 0, \"reports\": 0}')",
}
GOOD_CHECKS = 2 * 10 + 2 * len(targets.TRACES) + 1 + len(targets.WORKLOADS)

# A target that can be had wherever this runs.
FAKE = targets.Target(
    name="fake", packages="some-package", minimum=10, cc="true", ar="true",
    runner=[sys.executable, "-I", "-S"],
)


def run_programs(**replaced):
    """Runs the programs, some replaced: the tally, and what was printed."""
    tally = targets.Tally(FAKE.name)
    printed = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="a folder ") as folder:
        for name, text in {**GOOD, **replaced}.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as script:
                script.write(text)
        with contextlib.redirect_stdout(printed):
            targets.Bench(FAKE, folder, {}, tally).programs()
    return tally, printed.getvalue()


def run_main(arguments, *table, require=""):
    """Runs the whole program: exit status and what was printed."""
    printed = io.StringIO()
    with mock.patch.dict(os.environ, HK_REQUIRE_TOOLS=require):
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                status = targets.main(arguments, table)
            except SystemExit as end:
                status = end.code
    return status, printed.getvalue()


class Programs(unittest.TestCase):
    """A run of all programs, of which one may be bad."""

    def assert_failed(self, failed, fault, **replaced):
        """So many checks fail and the rest do well; the output tells why."""
        tally, printed = run_programs(**replaced)
        self.assertEqual(tally.failed, failed, printed)
        self.assertIn(f"FAILED: {fault}", printed)
        self.assertLess(tally.passed, GOOD_CHECKS)
        self.assertGreater(tally.passed, 0)

    def test_good(self):
        tally, printed = run_programs()
        self.assertEqual((tally.passed, tally.failed), (GOOD_CHECKS, 0), printed)
        self.assertNotIn("FAILED", printed)

    def test_failed_checks(self):
        text = "print('a.c:1: failed: x')\nprint('5 passed, 1 failed')\nraise SystemExit(1)"
        tally, printed = run_programs(selfcheck=text)
        self.assertEqual(tally.failed, 2)
        self.assertIn("a.c:1: failed: x", printed)

    def test_failed_checks_and_exit_code_0(self):
        self.assert_failed(2, "1 checks failed", selfcheck="print('50 passed, 1 failed')")

    def test_exit_code(self):
        text = "print('10 passed, 0 failed')\nraise SystemExit(3)"
        self.assert_failed(2, "exit code 3", selfcheck=text)

    def test_crash(self):
        text = "print('10 passed, 0 failed', flush=True)\nimport os\nos.kill(os.getpid(), 11)"
        self.assert_failed(2, "killed by signal 11", selfcheck=text)

    def test_few_checks(self):
        self.assert_failed(2, "9 passed, at least 10", selfcheck="print('9 passed, 0 failed')")

    def test_no_summary(self):
        self.assert_failed(2, "the last line is no summary", selfcheck="print('all is well')")

    def test_summary_is_not_last(self):
        text = "print('10 passed, 0 failed')\nprint('and then?')"
        self.assert_failed(2, "the last line is no summary", selfcheck=text)

    def test_hang(self):
        code = "import time\nprint('10 passed, 0 failed', flush=True)\ntime.sleep(600)"
        tally, printed = targets.Tally(FAKE.name), io.StringIO()
        with contextlib.redirect_stdout(printed):
            # python -c CODE
            targets.Bench(FAKE, "", {}, tally, limit=2).selfcheck("hang", [code], program="-c")
        self.assertEqual((tally.passed, tally.failed), (0, 1))
        self.assertIn("hang: FAILED: still running after 2 s", printed.getvalue())

    def test_replay_with_failed_checks(self):
        text = GOOD["replay"].replace("'failed_checks': 0", "'failed_checks': 2")
        self.assert_failed(len(targets.TRACES), "failed_checks is 2", replay=text)

    def test_replay_on_one_thread(self):
        text = GOOD["replay"].replace("'--threads' in sys.argv", "False")
        self.assert_failed(len(targets.TRACES), "threads is 1", replay=text)

    def test_replay_of_half_a_trace(self):
        text = GOOD["replay"].replace("'reports': 0", "'reports': 0, 'events': 7")
        self.assert_failed(len(targets.TRACES), "events is 7", replay=text)

    def test_replay_without_json(self):
        text = "print('all is well')"
        self.assert_failed(len(targets.TRACES), "cannot read its JSON", replay=text)

    def test_workloads_that_find_damage(self):
        text = "print('{\"failed_checks\": 1, \"reports\": 0}')"
        self.assert_failed(len(targets.WORKLOADS), "failed_checks is 1", workload=text)

    def test_engine_without_a_key(self):
        self.assert_failed(1, "cannot read its JSON", engine="print('{\"frames\": 500}')")


class Windows(unittest.TestCase):
    """What is looked at on Windows alone."""

    dump = """\
The Export Tables (interpreted .edata section contents)

Export Address Table -- Ordinal Base 1
\t[   0] +base[   1] 8e70 Export RVA

[Ordinal/Name Pointer] Table
\t[   0] hk_alloc_fn
\t[   1] hk_free_fn

The Function Table (interpreted .pdata section contents)
\t[   2] not_an_export
"""

    def test_exports(self):
        exported = targets.exports(self.dump)
        self.assertEqual(exported, {"hk_alloc_fn", "hk_free_fn"})
        faults = targets.export_faults
        self.assertEqual(faults(exported, "hk_alloc_fn\nhk_free_fn\nhk_free inline\n"), [])
        self.assertEqual(faults(exported, "hk_alloc_fn\n"), ["hk_free_fn is one too many"])
        self.assertEqual(faults({"hk_free_fn"}, "hk_alloc_fn\nhk_free_fn\n"),
                         ["hk_alloc_fn is missing"])
        self.assertEqual(faults(set(), ""), ["selfcheck lists no function"])

    def test_commit(self):
        report = {"live_block_bytes": 100 << 20, "committed_bytes": 119 << 20}
        # 115 + 4 MiB are allowed.
        for process, count in ((119 << 20, 0), (None, 0), ((119 << 20) + 1, 1)):
            report["process_committed_bytes"] = process
            self.assertEqual(len(targets.commit_faults(report)[0]), count)
        report["committed_bytes"] += 1
        self.assertEqual(len(targets.commit_faults(report)[0]), 2)


class Main(unittest.TestCase):
    """Exit status and last lines."""

    missing = targets.Target(
        name="missing", packages="the-package", minimum=10, cc="no-such-compiler-here"
    )
    broken = targets.Target(name="broken", packages="the-package", minimum=10, cc="false")

    def test_missing_tool(self):
        status, printed = run_main(["missing"], self.missing)
        self.assertEqual(status, 0, printed)
        self.assertIn("SKIPPED missing: no-such-compiler-here was not found; apt-get install "
                      "the-package", printed)
        self.assertIn("0 FAILED, 1 SKIPPED", printed.splitlines()[-1])
        self.assertNotIn("passed", printed)

    def test_compiler_without_headers(self):
        status, printed = run_main(["broken"], self.broken)
        self.assertEqual(status, 0, printed)
        self.assertIn("SKIPPED broken: false builds no program", printed)

    def test_missing_tool_that_is_required(self):
        status, printed = run_main(["missing"], self.missing, require="1")
        self.assertEqual(status, 1, printed)
        self.assertIn("1 FAILED, 0 SKIPPED", printed.splitlines()[-1])
        self.assertTrue(re.search(r"^0 passed, 1 failed: missing", printed, re.M), printed)

    def test_other_targets_go_on(self):
        status, printed = run_main(["missing", "broken"], self.missing, self.broken, require="1")
        self.assertEqual(status, 1, printed)
        self.assertIn("targets: 2, 2 FAILED", printed.splitlines()[-1])

    def test_build_that_fails(self):
        with mock.patch.object(targets, "missing_tools", return_value=None):
            status, printed = run_main(["fake"], targets.dataclasses.replace(
                FAKE, configure=["--no-such-option"]))
        self.assertEqual(status, 1, printed)
        self.assertIn("fake: building: FAILED: exit code 2", printed)
        self.assertTrue(re.search(r"^0 passed, 1 failed: fake", printed, re.M), printed)

    def test_page_size_that_the_runner_has_not(self):
        for require, failed in (("", 0), ("1", 1)):
            tally, printed = targets.Tally(FAKE.name), io.StringIO()
            with mock.patch.dict(os.environ, HK_REQUIRE_TOOLS=require):
                with contextlib.redirect_stdout(printed):
                    targets.Bench(FAKE, "", {}, tally).page_size("probe", 16384)
            self.assertEqual((tally.failed, tally.skipped), (failed, 1 - failed))
            self.assertIn("has no pages of 16384 bytes", printed.getvalue())

    def test_usage(self):
        self.assertEqual(run_main([], FAKE)[0], 2)
        self.assertEqual(run_main(["other"], FAKE)[0], 2)
        status, printed = run_main(["--list"], FAKE)
        self.assertEqual(status, 0)
        self.assertEqual(printed.split(), ["fake", "some-package"])


if __name__ == "__main__":
    unittest.main()
