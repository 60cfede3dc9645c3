"""The isolated side: checks a bundle against the officers' keys and brings up serving.

Imports the standard library, click, tuf and securesystemslib, nothing else, so that it fits in one
pure-Python `airgap.pyz`.
"""

__version__ = "0.1.0"
