#!/bin/sh
# Certificates for mutual TLS between clients, balancer and servers, by an authority of your own:
#
#   certificates.sh OUT [HOST...]      authority, server-tls, balancer-tls and client-tls; HOST: other names or addresses
#                                      by which clients reach the balancer
#   certificates.sh OUT --client NAME  client-NAME-tls, for a client of that name
#
# In each folder: tls.crt, tls.key, ca.crt, named as cert-manager names them. Again with the same OUT, the authority stays
# and the rest is new. Keep OUT/authority/tls.key away from the cluster; it is not needed there.
set -eu
umask 022
days=397

fail() {
    echo "certificates.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] || fail "no folder was given: certificates.sh OUT [HOST...]"
command -v openssl >/dev/null || fail "there is no openssl: install it"
out=$1
shift

# Containers of other users read the files one by one; nobody else gets into the folder.
mkdir -p "$out"
chmod 700 "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

alternatives() {
    for name in "$@"; do
        case $name in
        *[!0-9.]*) case $name in *:*) printf 'IP:%s,' "$name" ;; *) printf 'DNS:%s,' "$name" ;; esac ;;
        *) printf 'IP:%s,' "$name" ;;
        esac
    done
}

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# certificate FOLDER COMMON_NAME USAGES [NAME...]
certificate() {
    folder=$out/$1 common=$2 usages=$3
    shift 3
    {
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$usages"
        echo "subjectKeyIdentifier=hash"
        echo "authorityKeyIdentifier=keyid"
        [ $# -eq 0 ] || echo "subjectAltName=$(alternatives "$@" | sed 's/,$//')"
    } >"$work/extensions"
    new_key "$work/tls.key"
    openssl req -new -key "$work/tls.key" -subj "/O=LymphCAD/CN=$common" -out "$work/request"
    openssl x509 -req -sha256 -days $days -in "$work/request" -extfile "$work/extensions" -set_serial "0x$(openssl rand -hex 16)" \
        -CA "$out/authority/tls.crt" -CAkey "$out/authority/tls.key" -out "$work/tls.crt" 2>/dev/null ||
        fail "no certificate could be made for '$common': is a name malformed?"
    mkdir -p "$folder"
    cp "$out/authority/tls.crt" "$folder/ca.crt"
    mv "$work/tls.key" "$folder/tls.key"
    mv "$work/tls.crt" "$folder/tls.crt"
    chmod 644 "$folder"/*
    echo "$folder"
}

if [ ! -f "$out/authority/tls.key" ]; then
    mkdir -p "$out/authority"
    chmod 700 "$out/authority"
    new_key "$work/authority.key"
    openssl req -x509 -sha256 -days 3650 -key "$work/authority.key" -subj "/O=LymphCAD/CN=LymphCAD authority" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -out "$out/authority/tls.crt"
    chmod 600 "$work/authority.key"
    mv "$work/authority.key" "$out/authority/tls.key"
fi

if [ "${1:-}" = --client ]; then
    [ $# -eq 2 ] || fail "--client takes one name: certificates.sh OUT --client NAME"
    case $2 in *[!A-Za-z0-9._-]* | "") fail "'$2' is no name of a client: use letters, digits, '.', '_' and '-'" ;; esac
    certificate "client-$2-tls" "$2" clientAuth
    exit
fi

for name in "$@"; do
    case $name in *[!A-Za-z0-9.:-]* | "") fail "'$name' is no name or address of a host: leave it out" ;; esac
done

inside() {
    for name in "$@"; do
        printf '%s %s.lymphcad %s.lymphcad.svc %s.lymphcad.svc.cluster.local ' "$name" "$name" "$name" "$name"
    done
}

# A server asks itself whether it answers, and the balancer asks servers: both are clients, too.
# shellcheck disable=SC2046
certificate server-tls triton serverAuth,clientAuth $(inside triton-stable triton-candidate) localhost 127.0.0.1
# shellcheck disable=SC2046
certificate balancer-tls balancer serverAuth,clientAuth $(inside balancer) localhost 127.0.0.1 "$@"
certificate client-tls dashboard clientAuth
