"""Errors of one server process; each is one line that says where, what and what to do."""

from __future__ import annotations


class ServerError(Exception):
    """Root of the errors that `server` raises.

    Attributes:
        exit_code: the process exit code a command ends with when this error reaches it.
    """

    exit_code = 3


class PlacedError(ServerError):
    """Root of the errors that name a place.

    Attributes:
        where: the place.
    """

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


class SettingError(ServerError):
    """A setting cannot be used.

    Attributes:
        setting: its name.
    """

    exit_code = 2

    def __init__(self, setting: str, what: str, remedy: str) -> None:
        """Say which setting, what is wrong with it and what to do."""
        self.setting = setting
        super().__init__(f"{setting}: {what}; {remedy}")


class SettingsMissingError(SettingError):
    """A file that a setting names is not there."""

    exit_code = 4


class BrokerError(ServerError):
    """A broker could not be started; nothing keeps running.

    Attributes:
        port: the TCP port it should have served.
    """

    exit_code = 6

    def __init__(self, *, port: int, what: str, remedy: str) -> None:
        """Say which port, what happened and what to do."""
        self.port = port
        super().__init__(f"MQTT broker on port {port}: {what}; {remedy}")


class BrokerMissingError(BrokerError):
    """No broker is installed here."""

    exit_code = 4


class StorageError(ServerError):
    """The database cannot be used as it is; nothing was written.

    Attributes:
        url: where it is, without a password.
    """

    def __init__(self, url: str, what: str, remedy: str) -> None:
        """Say where, what happened and what to do."""
        self.url = url
        super().__init__(f"database {url}: {what}; {remedy}")


class StorageUnavailableError(StorageError):
    """The database is locked, full or gone for now; trying again later may help."""

    exit_code = 6


class StorageMissingError(StorageError):
    """There is no database yet: `fedcell server run` makes it."""

    exit_code = 4


class StorageDriverError(StorageError):
    """The library that speaks to this kind of database is not installed."""

    exit_code = 4


class KeyFileError(PlacedError):
    """A key file is missing, unsafe or holds no key.

    Attributes:
        where: its path.
    """

    exit_code = 5


class KeyFileMissingError(KeyFileError):
    """There is no key file yet: `fedcell server key` makes one."""

    exit_code = 4


class DeviceUnknownError(ServerError):
    """A device that has never spoken to this server; nothing was written.

    Attributes:
        device_id: as it was named.
    """

    def __init__(self, device_id: str) -> None:
        """Name the device and what to do."""
        self.device_id = device_id
        super().__init__(f"device {device_id}: has never spoken to this server; check the name")


class RegistryError(ServerError):
    """The registry refused a model or a change of its state; nothing changed.

    Attributes:
        version: the model's version.
    """

    exit_code = 5

    def __init__(self, version: str, what: str, remedy: str) -> None:
        """Say which model, what is wrong and what to do."""
        self.version = version
        super().__init__(f"model {version}: {what}; {remedy}")


class CertificateError(ServerError):
    """A key, certificate or request is not what it should be; says what, in a few words."""

    exit_code = 5


class AuthorityError(PlacedError):
    """The fleet's authority cannot do what it is asked; nothing was changed.

    Attributes:
        where: its folder, a device or a token.
    """


class AuthorityMissingError(AuthorityError):
    """There is no authority yet: `fedcell fleet init` makes one."""

    exit_code = 4


class EnrolmentError(ServerError):
    """A device was not enrolled, or not given a new certificate.

    Attributes:
        reason: what a device goes by: `bad_request`, `bad_token`, `taken`, `unknown_device`,
            `revoked`, `too_early` or `bad_signature`.
    """

    exit_code = 5

    def __init__(self, reason: str, what: str) -> None:
        """Name the reason, and say what is wrong."""
        self.reason = reason
        super().__init__(what)
