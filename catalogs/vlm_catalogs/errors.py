"""The errors that a user can mend. Only a command's ``main`` catches them; everything else is a bug of ours."""


class UserError(Exception):
    """Something the user can mend; the message says where, what was expected, what was found, what to do."""


class ConfigError(UserError):
    """A TOML, a catalogue or a command line that is wrong."""


class DataError(UserError):
    """Data that is wrong: sources, shards, manifests, checkpoints."""


class StorageError(UserError):
    """Storage that failed: disk, network, permission, short reads. Never a reason to reject a sample."""
