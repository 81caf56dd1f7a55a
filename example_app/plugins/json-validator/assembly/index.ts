// Refuses requests whose body is not well-formed JSON.

export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  Context,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  RootContext,
  makeHeaderPair,
  registerRootContext,
  send_http_response,
  stream_context,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";
import { isJson } from "./json";

class JsonValidatorRoot extends RootContext {
  createContext(context_id: u32): Context {
    return new JsonValidator(context_id, this);
  }
}

class JsonValidator extends Context {
  private validated: bool = false;
  private required: bool = false;

  constructor(context_id: u32, root_context: JsonValidatorRoot) {
    super(context_id, root_context);
  }

  onRequestHeaders(headers: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const request = stream_context.headers.request;
    const method = request.get(":method");
    this.validated = method != "GET" && method != "HEAD";
    this.required =
      (method == "POST" || method == "PUT" || method == "PATCH") &&
      isJsonType(request.get("content-type"));
    if (end_of_stream && this.required) {
      refuse();
      return FilterHeadersStatusValues.StopIteration;
    }
    return FilterHeadersStatusValues.Continue;
  }

  onRequestBody(size: usize, end_of_stream: bool): FilterDataStatusValues {
    if (!this.validated) return FilterDataStatusValues.Continue;
    // Nothing is read before all is there: `size` then covers the whole body.
    if (!end_of_stream) return FilterDataStatusValues.StopIterationAndBuffer;
    if (size == 0 ? !this.required : isJson(size as u32)) return FilterDataStatusValues.Continue;
    refuse();
    return FilterDataStatusValues.StopIterationAndBuffer;
  }
}

/** Whether a content type is `application/json`, `application/problem+json` and the like. */
function isJsonType(contentType: string): bool {
  const mediaType = contentType.split(";")[0].trim().toLowerCase();
  return mediaType.endsWith("/json") || mediaType.endsWith("+json");
}

function refuse(): void {
  const body = String.UTF8.encode('{"error": "invalid JSON"}');
  send_http_response(400, "invalid_json", body, [makeHeaderPair("content-type", "application/json")]);
}

registerRootContext((context_id: u32) => new JsonValidatorRoot(context_id), "json-validator");
