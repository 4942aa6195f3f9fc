"""The configuration: one frozen value, read from config.toml and passed by hand."""

from proxy.config.reader import Config, ConfigError, Mistake, load_config

__all__ = ["Config", "ConfigError", "Mistake", "load_config"]
