# syntax=docker/dockerfile:1
# Stage 1 builds the wheel and installs it with its dependencies into one folder.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# The package is this very checkout; the versions of what it needs are named in pyproject.toml.
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir --target=/opt/authproxy ".[fast,postgres,mcp]"

# Stage 2 has an interpreter and nothing else: no shell, no package manager, no root.
# The interpreter is the same minor version that the wheels were chosen for.
FROM gcr.io/distroless/python3-debian12:nonroot
COPY --from=build /opt/authproxy /opt/authproxy
ENV PYTHONPATH=/opt/authproxy \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The root file system may be read-only: state goes to the volume, replay spools to /tmp.
VOLUME ["/var/lib/authproxy"]
WORKDIR /var/lib/authproxy
EXPOSE 8700 8701
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/python3", "-m", "authproxy"]
CMD ["serve", "--config", "/etc/authproxy/routes.yaml", "--store", "sqlite:////var/lib/authproxy/authproxy.db"]
