"""TLS to the broker. Of ``amqps://`` alone kombu makes a connection that checks no certificate
(``amqp/transport.py``, ``SSLTransport``): encrypted, and open to whoever stands in between. Here the
broker must show one that is valid for its name.
"""

from __future__ import annotations

import ssl
from typing import Any

from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import PREFIX, Settings


def broker_tls(settings: Settings) -> dict[str, Any] | bool:
    """What Celery takes as ``broker_use_ssl``: False for a broker without TLS.

    Without ``broker_ca_file`` the system's certificate authorities count. ConfigurationError for
    files beside an address without TLS, which would be without effect.
    """
    files = {
        "ca_certs": settings.broker_ca_file,
        "certfile": settings.broker_cert_file,
        "keyfile": settings.broker_key_file,
    }
    given = {name: path for name, path in files.items() if path}
    secured = {url.startswith("amqps://") for url in settings.broker_addresses}
    if len(secured) > 1:
        raise ConfigurationError(
            f"{PREFIX}BROKER_URL names brokers with TLS and without: use amqps:// for all or for none."
        )
    if secured == {False}:
        if given:
            raise ConfigurationError(
                f"{PREFIX}BROKER_CA_FILE, _CERT_FILE and _KEY_FILE are for amqps://, and "
                f"{PREFIX}BROKER_URL begins otherwise."
            )
        return False
    # The host's name is filled in for each connection (``kombu/transport/pyamqp.py``).
    return given | {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": None,
        "tls_minimum_version": ssl.TLSVersion.TLSv1_2,
    }
