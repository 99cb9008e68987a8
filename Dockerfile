# The images of the development set-up: docker-compose.yml puts them together, README.rst says how.
#   watchman   notify, its page, and Celery for a worker
#   proftpd    an FTP server whose uploads watchman announces

FROM debian:bookworm-slim AS users
# The same in both images: a new volume gets owner and mode from the first image that mounts it.
# Uploads belong to the FTP server's user; the group is watchman's, so that it may move them.
RUN groupadd --gid 1000 watchman \
    && useradd --uid 1000 --gid watchman --home-dir /var/lib/watchman watchman \
    && useradd --uid 1001 --gid watchman --home-dir /srv/ftp uploader \
    && install --directory --owner=watchman --group=watchman --mode=0700 /var/lib/watchman \
    && install --directory --owner=uploader --group=watchman --mode=2775 /srv/ftp

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv
# For a package index other than pip's own: --build-arg PIP_INDEX_URL=…
ARG PIP_INDEX_URL
WORKDIR /usr/src/watchman
COPY setup.py pyproject.toml constraints.txt README.rst LICENSE ./
COPY config-example.py celeryconfig.py supervisord.conf ./
COPY share share
COPY watchman watchman
RUN python3 -m venv /opt/watchman \
    && /opt/watchman/bin/pip install --no-cache-dir --constraint constraints.txt '.[web]'

FROM users AS proftpd
RUN apt-get update \
    && apt-get install --yes --no-install-recommends proftpd-core \
    && rm -rf /var/lib/apt/lists/*
# Who uploads: user ftp, password ftp.
RUN echo ftp | ftpasswd --passwd --stdin --file=/etc/proftpd/passwd --name=ftp \
        --uid=1001 --gid=1000 --home=/srv/ftp --shell=/bin/false
COPY docker/proftpd.conf /etc/proftpd/proftpd.conf
# As root: for each session it becomes the user that has logged in.
CMD ["proftpd", "--nodaemon", "--config", "/etc/proftpd/proftpd.conf"]

# The last one, which is built where none is named.
FROM users AS watchman
# notify runs without root's powers. One of them, the read lease, it needs for files of others:
# docker/entrypoint hands it on from this copy of setpriv.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 libcap2-bin \
    && rm -rf /var/lib/apt/lists/* \
    && cp /usr/bin/setpriv /usr/local/bin/setpriv-lease \
    && setcap cap_lease+ep /usr/local/bin/setpriv-lease
COPY --from=build /opt/watchman /opt/watchman
COPY docker/entrypoint /usr/local/bin/entrypoint
COPY docker/config.py docker/celeryconfig.py docker/tasks.py /etc/watchman/
ENV PATH=/opt/watchman/bin:/usr/local/bin:/usr/bin:/bin \
    WATCHMAN_CONFIG=/etc/watchman/config.py
WORKDIR /etc/watchman
USER watchman
# Healthy is: events come through the kernel, and nothing has waited for too long (0); or somebody
# should look, while files go their way (1).
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD notify health || [ $? -eq 1 ]
ENTRYPOINT ["entrypoint"]
CMD ["notify"]
