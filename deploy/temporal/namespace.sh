#!/bin/sh
# Makes Everbill's namespace and its search attributes, or brings them up to date; repeats change
# nothing. TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE say where.
set -eu

: "${TEMPORAL_NAMESPACE:?name the namespace}"
tries=30

# As long as idempotency claims live: a repeated command joins the run that it once started.
retention=720h

# The names and types of runtime/attributes.py.
attributes='
CustomerId Keyword
BillingStatus Keyword
Gateway Keyword
GatewayReference Keyword
Currency Keyword
AmountMinor Int
NeedsAttention Bool
NextChargeAt Datetime
'

persistently() {
    try=1
    until "$@"; do
        if [ "$try" -ge "$tries" ]; then
            echo "gave up after $tries tries: $*" >&2
            exit 1
        fi
        try=$((try + 1))
        sleep 1
    done
}

persistently temporal operator cluster health
if temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    temporal operator namespace update --namespace "$TEMPORAL_NAMESPACE" --retention "$retention"
else
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$retention"
fi
# A new namespace is not known to every part of the server at once.
echo "$attributes" | while read -r name type; do
    [ -z "$name" ] || persistently temporal operator search-attribute create \
        --name "$name" --type "$type"
done
