"""The manual of the `sandbox` program knows what the program knows."""
import re
import subprocess

from harness import BUILD, ROOT


def options_of_help():
    text = subprocess.run([BUILD / "sandbox", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  (--[a-z-]+)", text, re.M))


def options_of_manual():
    text = (ROOT / "packaging/sandbox.1").read_text().replace("\\-", "-").replace("\\ ", " ")
    return set(re.findall(r"^\.BI? (--[a-z-]+)", text, re.M))


def test_every_option_is_in_the_manual():
    assert options_of_help() == options_of_manual()
    assert len(options_of_help()) > 10
