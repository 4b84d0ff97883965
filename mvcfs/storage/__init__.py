"""The only import of HDFS clients: one small protocol over HDFS, a local folder and memory, and its wrappers."""
