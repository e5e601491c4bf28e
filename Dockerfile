# syntax=docker/dockerfile:1
#
# Targets:
#   plugin             the default: Envoy's contrib build with healthgate.so and envoy/envoy.yaml
#   module             stock Envoy with libhealthgate.so and envoy/module.yaml
#   module-distroless  the same without a shell
#   module-only        libhealthgate.so alone: for an image volume, or COPY --from in your own image
#   backend            the gRPC service of the tests
#   certificate        makes a self-signed certificate, to try it
#   e2e                the tests
# The first three have the command healthgate, start Envoy as user 101 and read /etc/envoy/envoy.yaml. All are cross-compiled for amd64
# and arm64: nothing is emulated. Bases are pinned by version; a build prints their digests.

ARG GO_VERSION=1.26.8
ARG ENVOY_VERSION=1.39.1
ARG STOCK_ENVOY_VERSION=1.40.0

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-bookworm AS go

# Envoy's image is made from Ubuntu 22.04: a plugin that is linked here needs no newer glibc.
FROM --platform=$BUILDPLATFORM ubuntu:22.04 AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG TARGETARCH
# hadolint wants versions of packages, but old versions leave the archive.
# hadolint ignore=DL3008,SC2086
RUN case "$TARGETARCH" in \
      amd64) cross="gcc-x86-64-linux-gnu libc6-dev-amd64-cross"; cc=x86_64-linux-gnu-gcc ;; \
      arm64) cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; cc=aarch64-linux-gnu-gcc ;; \
      *) echo "no build for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if [ "$(dpkg --print-architecture)" = "$TARGETARCH" ]; then cross=; fi; \
    apt-get update; \
    apt-get install -y --no-install-recommends binutils ca-certificates gcc libc6-dev make $cross; \
    rm -rf /var/lib/apt/lists/*; \
    echo "$cc" > /cc
COPY --from=go /usr/local/go /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH GOTOOLCHAIN=local GOMODCACHE=/cache/mod GOCACHE=/cache/build
WORKDIR /src
COPY go.mod go.sum ./
COPY e2e/go.mod e2e/go.sum e2e/
RUN --mount=type=cache,target=/cache/mod go mod download && go -C e2e mod download
COPY . .
# The build context has no git history, so the version is an argument.
ARG VERSION=devel
ARG REVISION=""
RUN --mount=type=cache,target=/cache/mod --mount=type=cache,target=/cache/build \
    make plugin module command build/backend build/demo GOARCH="$TARGETARCH" CC="$(cat /cc)" VERSION="$VERSION" REVISION="$REVISION"

FROM scratch AS backend
ARG VERSION=devel
ARG REVISION
LABEL org.opencontainers.image.title="Healthgate's backend" \
      org.opencontainers.image.description="The gRPC service that Healthgate is tested in front of" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /src/build/backend /backend
COPY LICENSE /LICENSE
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/backend"]

FROM build AS folder
RUN mkdir /tls

FROM scratch AS certificate
LABEL org.opencontainers.image.title="Healthgate's certificate" \
      org.opencontainers.image.description="Makes a self-signed certificate for localhost in /tls, to try it" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/build/demo /demo
# A volume that is mounted here belongs to Envoy's user, who must read the key.
COPY --from=folder --chown=101:101 /tls /tls
USER 101:101
ENTRYPOINT ["/demo"]
# A certificate that is still valid is kept, because a running Envoy presents it.
CMD ["cert", "-dir", "/tls", "-keep"]

# The tests of e2e/docker-compose.yaml and the programs that they start, except Envoy.
FROM build AS suite
ARG TARGETARCH
RUN --mount=type=cache,target=/cache/mod --mount=type=cache,target=/cache/build \
    make build/e2e.test build/clock.so GOARCH="$TARGETARCH" CC="$(cat /cc)"
FROM envoyproxy/envoy:contrib-v${ENVOY_VERSION} AS e2e
LABEL org.opencontainers.image.title="Healthgate's tests" \
      org.opencontainers.image.description="The tests in a real Envoy, with an Envoy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=suite /src /src
ENV ENVOY=/usr/local/bin/envoy
USER 101:101
WORKDIR /src/e2e/suite
ENTRYPOINT []
CMD ["/src/build/e2e.test", "-test.v"]

FROM scratch AS module-only
ARG VERSION=devel
ARG REVISION
LABEL org.opencontainers.image.title="Healthgate's dynamic module" \
      org.opencontainers.image.description="libhealthgate.so, for stock Envoy 1.38 to 1.40" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build --chmod=0644 /src/build/libhealthgate.so /libhealthgate.so
COPY LICENSE NOTICE /

# The files that the module's images add to Envoy's.
FROM scratch AS module-files
COPY LICENSE NOTICE /usr/share/doc/healthgate/
COPY --chmod=0644 envoy/module.yaml /etc/envoy/envoy.yaml
COPY --from=build --chmod=0644 /src/build/libhealthgate.so /etc/envoy/libhealthgate.so
COPY --from=build --chmod=0755 /src/build/healthgate /usr/local/bin/healthgate

FROM envoyproxy/envoy:v${STOCK_ENVOY_VERSION} AS module
ARG STOCK_ENVOY_VERSION
ARG VERSION=devel
ARG REVISION
LABEL org.opencontainers.image.title="Stock Envoy with Healthgate" \
      org.opencontainers.image.description="Answers HTTP and gRPC health checks from the health of Envoy's clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="envoyproxy/envoy:v${STOCK_ENVOY_VERSION}"
COPY --from=module-files /etc/envoy /etc/envoy
COPY --from=module-files /usr/local/bin/healthgate /usr/local/bin/healthgate
COPY --from=module-files /usr/share/doc/healthgate /usr/share/doc/healthgate
ENV ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/etc/envoy
USER 101:101
EXPOSE 8443
ENTRYPOINT ["/usr/local/bin/envoy"]
CMD ["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--drain-strategy", "immediate"]

FROM envoyproxy/envoy:distroless-v${STOCK_ENVOY_VERSION} AS module-distroless
ARG STOCK_ENVOY_VERSION
ARG VERSION=devel
ARG REVISION
LABEL org.opencontainers.image.title="Stock Envoy with Healthgate, without a shell" \
      org.opencontainers.image.description="Answers HTTP and gRPC health checks from the health of Envoy's clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="envoyproxy/envoy:distroless-v${STOCK_ENVOY_VERSION}"
COPY --from=module-files /etc/envoy /etc/envoy
COPY --from=module-files /usr/local/bin/healthgate /usr/local/bin/healthgate
COPY --from=module-files /usr/share/doc/healthgate /usr/share/doc/healthgate
ENV ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/etc/envoy
# The same user as in the other images, so that one key and one manifest fit all.
USER 101:101
EXPOSE 8443
ENTRYPOINT ["/usr/local/bin/envoy"]
CMD ["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--drain-strategy", "immediate"]

FROM envoyproxy/envoy:contrib-v${ENVOY_VERSION} AS plugin
ARG ENVOY_VERSION
ARG VERSION=devel
ARG REVISION
LABEL org.opencontainers.image.title="Envoy contrib with Healthgate" \
      org.opencontainers.image.description="Answers HTTP health checks from the health of Envoy's clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="envoyproxy/envoy:contrib-v${ENVOY_VERSION}"
COPY LICENSE NOTICE /usr/share/doc/healthgate/
COPY --chmod=0644 envoy/envoy.yaml /etc/envoy/envoy.yaml
COPY --from=build --chmod=0755 /src/build/healthgate /usr/local/bin/healthgate
COPY --from=build --chmod=0644 /src/build/healthgate.so /etc/envoy/healthgate.so
# The base image's user envoy. Its own entry point starts as root and becomes that user.
USER 101:101
EXPOSE 8443
ENTRYPOINT ["/usr/local/bin/envoy"]
# Without hot restart Envoy writes nothing, so its root can be read-only. Envoy's default drain strategy is gradual and takes ten minutes
# to reach every connection: longer than a pod has.
CMD ["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--drain-strategy", "immediate"]
