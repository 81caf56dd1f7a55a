// Does what its configuration says; tests/e2e/envoy/cases.py describes the language.

export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  BaseContext,
  BufferTypeValues,
  Context,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  HeaderPair,
  Headers,
  LogLevelValues,
  RootContext,
  WasmResultValues,
  continue_request,
  continue_response,
  get_buffer_bytes,
  get_property,
  get_shared_data,
  log,
  makeHeaderPair,
  registerRootContext,
  send_http_response,
  set_buffer_bytes,
  set_shared_data,
  stream_context,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";
import { decode, escape } from "./words";

const LEVELS = ["trace", "debug", "info", "warn", "error", "critical"];

/** Words are decoded, the text is as it was written. */
class Operation {
  constructor(
    readonly phase: string,
    readonly name: string,
    readonly text: string,
    readonly words: ArrayBuffer[],
  ) {}

  say(result: ArrayBuffer): void {
    log(LogLevelValues.info, this.text + " -> " + escape(result));
  }

  sayText(result: string): void {
    this.say(String.UTF8.encode(result));
  }

  word(index: i32): string {
    return index < this.words.length ? String.UTF8.decode(this.words[index]) : "";
  }

  number(index: i32): u32 {
    return <u32>parseInt(this.word(index));
  }

  inRequest(): bool {
    return this.word(0) == "request";
  }

  inResponse(): bool {
    return this.word(0) == "response";
  }

  buffer(): BufferTypeValues {
    if (this.inRequest()) return BufferTypeValues.HttpRequestBody;
    if (this.inResponse()) return BufferTypeValues.HttpResponseBody;
    return BufferTypeValues.HttpCallResponseBody;
  }

  pairs(index: i32): Headers {
    const pairs = new Array<HeaderPair>();
    for (; index < this.words.length; index++) {
      const word = this.word(index);
      const middle = word.indexOf("=");
      pairs.push(makeHeaderPair(word.substring(0, middle), word.substring(middle + 1)));
    }
    return pairs;
  }
}

class DifferRoot extends RootContext {
  script: Operation[] = [];

  onConfigure(size: u32): bool {
    super.onConfigure(size);
    const lines = this.getConfiguration().split("\n");
    for (let i = 0; i < lines.length; i++) {
      const middle = lines[i].indexOf(": ");
      const phase = lines[i].substring(0, middle);
      const texts = lines[i].substring(middle + 2).split("; ");
      for (let j = 0; j < texts.length; j++) {
        const parts = texts[j].split(" ");
        const words = new Array<ArrayBuffer>();
        for (let k = 1; k < parts.length; k++) words.push(decode(parts[k]));
        this.script.push(new Operation(phase, parts[0], phase + " " + texts[j], words));
      }
    }
    return true;
  }

  createContext(context_id: u32): Context {
    return new Differ(context_id, this);
  }
}

class Differ extends Context {
  private cas: u32 = 0;

  constructor(
    context_id: u32,
    private root: DifferRoot,
  ) {
    super(context_id, root);
  }

  onRequestHeaders(headers: u32, end: bool): FilterHeadersStatusValues {
    return <FilterHeadersStatusValues>this.run("request_headers", `${headers} ${end}`);
  }

  onRequestBody(size: usize, end: bool): FilterDataStatusValues {
    return this.body("request", size, end);
  }

  onResponseHeaders(headers: u32, end: bool): FilterHeadersStatusValues {
    return <FilterHeadersStatusValues>this.run("response_headers", `${headers} ${end}`);
  }

  onResponseBody(size: usize, end: bool): FilterDataStatusValues {
    return this.body("response", size, end);
  }

  onLog(): void {
    this.run("log", "");
  }

  private body(phase: string, size: usize, end: bool): FilterDataStatusValues {
    const passed = `${size} ${end}`;
    const whole = this.run(phase + "_body", passed);
    const part = this.run(phase + (end ? "_end" : "_more"), passed);
    return <FilterDataStatusValues>max(whole, part);
  }

  /** Runs the operations of a phase; returns the action, as every phase has it. */
  run(phase: string, passed: string): i32 {
    let action = 0;
    const script = this.root.script;
    for (let i = 0; i < script.length; i++) {
      const operation = script[i];
      if (operation.phase != phase) continue;
      if (operation.name == "pause") {
        action = 1;
      } else if (operation.name == "arguments") {
        operation.sayText(passed);
      } else if (!this.say(operation)) {
        const result = this.change(operation);
        if (result != WasmResultValues.Ok) operation.sayText(`error: ${result}`);
      }
    }
    return action;
  }

  /** Operations with a result; false if it is none of those. */
  private say(o: Operation): bool {
    const headers = stream_context.headers;
    const map = o.inRequest() ? headers.request : o.inResponse() ? headers.response : headers.http_callback;
    if (o.name == "get") {
      o.sayText(map.get(o.word(1)));
    } else if (o.name == "pairs") {
      const pairs = map.get_headers();
      const texts = new Array<string>();
      for (let i = 0; i < pairs.length; i++) {
        texts.push(String.UTF8.decode(pairs[i].key) + "=" + String.UTF8.decode(pairs[i].value));
      }
      o.sayText(texts.join(" "));
    } else if (o.name == "read") {
      o.say(get_buffer_bytes(o.buffer(), o.number(1), o.number(2)));
    } else if (o.name == "property") {
      o.say(get_property(o.word(0).split(".").join("\0")));
    } else if (o.name == "sharedget") {
      const got = get_shared_data(o.word(0));
      const value = got.value;
      this.cas = got.cas;
      if (value) o.say(value);
      else o.sayText("(none)");
    } else if (o.name == "sharedset") {
      const cas = o.word(2) == "last" ? this.cas : o.word(2) == "stale" ? this.cas + 1000 : 0;
      o.sayText(set_shared_data(o.word(0), o.words[1], cas).toString());
    } else if (o.name == "httpcall") {
      o.sayText(this.call(o).toString());
    } else {
      return false;
    }
    return true;
  }

  private call(o: Operation): WasmResultValues {
    const head = [
      makeHeaderPair(":method", "POST"),
      makeHeaderPair(":path", o.word(1)),
      makeHeaderPair(":authority", "upstream"),
    ];
    return this.root.httpCall(o.word(0), head, o.words[2], [], 5000, this, called);
  }

  private change(o: Operation): WasmResultValues {
    const headers = stream_context.headers;
    const map = o.inRequest() ? headers.request : o.inResponse() ? headers.response : headers.http_callback;
    if (o.name == "write") return set_buffer_bytes(o.buffer(), o.number(1), o.number(2), o.words[3]);
    if (o.name == "keep") {
      const kept = get_buffer_bytes(o.buffer(), 0, o.number(1));
      return set_buffer_bytes(o.buffer(), 0, u32.MAX_VALUE, kept);
    }
    if (o.name == "reply") return send_http_response(o.number(0), "", o.words[1], o.pairs(2));
    if (o.name == "resume") return o.inRequest() ? continue_request() : continue_response();
    if (o.name == "add") map.add(o.word(1), o.word(2));
    else if (o.name == "replace") map.replace(o.word(1), o.word(2));
    else if (o.name == "remove") map.remove(o.word(1));
    else if (o.name == "log") log(<LogLevelValues>LEVELS.indexOf(o.word(0)), o.word(1));
    else throw new Error("the script says trap");
    return WasmResultValues.Ok;
  }
}

function called(stream: BaseContext, headers: u32, size: usize, trailers: u32): void {
  (stream as Differ).run("call", `${headers} ${size} ${trailers}`);
}

registerRootContext((context_id: u32) => new DifferRoot(context_id), "differ-as");
