"""mvcfs: a versioned file system for models, backed by HDFS or a local folder."""

__version__ = "0.1.0"
