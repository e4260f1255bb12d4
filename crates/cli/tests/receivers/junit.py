"""Judges a JUnit report on standard input; prints its tests as JSON, or what is wrong with it.

The shape is the one that Jenkins and GitLab publish for JUnit XML: which elements stand where, which attributes
they have, and that the counts of a suite are those of its tests. The tests themselves are read by junitparser.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree

import junitparser

# Element: (attributes that it must have, attributes that it may have, children).
SHAPE = {
    "testsuites": ([], ["name", "tests", "failures", "errors", "time"], ["testsuite"]),
    "testsuite": (
        ["name", "tests", "failures", "errors"],
        ["skipped", "time", "timestamp", "hostname", "id", "package"],
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "testcase": (
        ["name", "classname"],
        ["time", "file", "line", "assertions", "status"],
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "failure": ([], ["message", "type"], []),
    "error": ([], ["message", "type"], []),
    "skipped": ([], ["message", "type"], []),
    "system-out": ([], [], []),
    "system-err": ([], [], []),
}


def wrong(element, path):
    """Everything in which an element differs from its shape."""
    path = f"{path}/{element.tag}"
    if element.tag not in SHAPE:
        return [f"{path} is unknown"]
    must, may, children = SHAPE[element.tag]
    found = [f"{path} lacks {name}" for name in must if name not in element.attrib]
    found += [f"{path} has {name}" for name in element.attrib if name not in must + may]
    for child in element:
        if child.tag not in children:
            found.append(f"{path} holds {child.tag}")
        found += wrong(child, path)
    if element.tag == "testcase" and sum(child.tag in ("skipped", "error", "failure") for child in element) > 1:
        found.append(f"{path} ends in two ways")
    if element.tag == "testsuite":
        tests = element.findall("testcase")
        for count, has in [("tests", None), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")]:
            counted = sum(has is None or test.find(has) is not None for test in tests)
            if element.get(count, str(counted)) != str(counted):
                found.append(f"{path} counts {element.get(count)} {count}, not {counted}")
    return found


text = sys.stdin.buffer.read()
problems = wrong(ElementTree.fromstring(text), "")
if problems:
    sys.exit("\n".join(problems))
tests = {}
for suite in junitparser.JUnitXml.fromstring(text):
    for test in suite:
        ended = [type(result).__name__.lower() for result in test.result] or ["passed"]
        tests[test.name] = ended[0]
print(json.dumps(tests))
