# Builds one static binary and nothing else: no shell, no libc, no root.
#
#   docker build -t funicular .
#   docker buildx build --platform linux/amd64,linux/arm64 -t funicular .
#
# The base image's own target is musl, so the result is static, whatever the platform; aws-lc is built by the C compiler,
# without cmake. tests/image does the same without an engine: it reads this file.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base linux-headers
# Addresses that the program corrects when it starts take a tenth of the room in this form.
ENV RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs"
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo ./.cargo
# The manifest names its benchmarks, and cargo reads no manifest whose files are not there.
COPY benches ./benches
# Dependencies first, so that a change of our own code does not build them again.
RUN mkdir -p src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --locked --profile image && rm -r src
COPY src ./src
RUN touch src/main.rs src/lib.rs && cargo build --locked --profile image --bin funicular

FROM scratch
COPY --from=build /src/target/image/funicular /funicular
# A uid of its own, so that redirect rules can exempt the sidecar by it; not one that other meshes or bases use.
USER 7246:7246
ENTRYPOINT ["/funicular"]
