#!/bin/sh
# What to try while the example runs; printed by `make run`.
url="http://127.0.0.1:${PORT:-8000}"
secret="${JWT_SECRET:-the-secret-of-the-example}"
token=$(python3 - "$secret" <<'PYTHON'
import base64, hashlib, hmac, json, sys, time
part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
text = b".".join(part(json.dumps(value).encode()) for value in (
    {"alg": "HS256", "typ": "JWT"}, {"sub": "alice", "exp": int(time.time()) + 86400}))
print((text + b"." + part(hmac.new(sys.argv[1].encode(), text, hashlib.sha256).digest())).decode())
PYTHON
)
cat <<TRY
Try, in another terminal:

  curl -i  $url/public/hello           # add-header (Rust): x-gateway: wasm
  curl -i  $url/private/me             # jwt-auth (Go): 401
  curl -i  $url/private/me -H 'authorization: Bearer $token'
  curl -i  $url/echo -d '{"a": 1}'     # json-validator (AssemblyScript)
  curl -i  $url/echo -d '{"a": 1'      # 400
  for i in 1 2 3 4 5 6 7; do curl -so /dev/null -w '%{http_code}\n' $url/limited; done   # rate-limit (Rust)
  curl     $url/page                   # redact (C)
  curl -N  $url/stream                 # server-sent events, as they happen

TRY
