"""What FTP and SFTP servers log of transfers: who uploaded a file, from where, how much of it.

``line_formats`` and ``extended`` read a line, ``mapping`` says which file it is about,
``following`` reads a log through rotation and restarts, ``line_matching`` brings lines and arrivals
together. What each server logs of each end of an upload was measured: docs/transfer-logs.rst.
"""
