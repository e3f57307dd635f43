#!/bin/sh
# Generated the files in this folder, once, with OpenSSL 3. They are valid from 2020 to 2120; the authority's key is not kept.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
touch "$work/index"
cat > "$work/conf" <<'END'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ca]
default_ca = default
[default]
database = index
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = policy
[policy]
commonName = supplied
END
request() { # name, subject
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config "$work/conf" \
    -keyout "$work/$1.key" -out "$work/$1.csr" -subj "$2"
}
sign() { # name, extensions, options
  name=$1 extensions=$2
  shift 2
  (cd "$work" && openssl ca -batch -notext -config conf -extensions "$extensions" -in "$name.csr" -out "$name.pem" \
    -startdate 20200101000000Z -enddate 21200101000000Z "$@")
}
request authority '/CN=Shipcast test authority'
request server '/CN=Shipcast test server'
sign authority authority -selfsign -keyfile authority.key
sign server server -cert authority.pem -keyfile authority.key
cp "$work/authority.pem" "$work/server.pem" "$work/server.key" .
chmod 644 server.key
