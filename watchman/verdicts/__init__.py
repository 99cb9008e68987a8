"""Is an upload whole? What the bytes of a file tell about that, in a process that may not harm.

The kernel tells when nobody writes any more; it does not tell whether the uploader was done. An
aborted upload by FTP looks complete. What ``complete`` asks for in the configuration is checked
here: `formats` has what each format's end must look like, `checksums` what a companion says.
"""
