import "./style/tokens.css";
import "./style/page.css";
import "./style/parts.css";
import "./style/views.css";
import { options, render, type ComponentChildren, type VNode } from "preact";
import { App } from "./app";
import { startLive } from "./live";
import { readSession } from "./session";
import "./theme";

// A name may hold characters that turn the direction of the text after them. They are shown as what they are: something odd.
const turning = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const straight = (c: ComponentChildren): ComponentChildren => (typeof c === "string" ? c.replace(turning, "\ufffd") : Array.isArray(c) ? c.map(straight) : c);
const before = options.vnode;
options.vnode = (v: VNode) => {
  const props = v.props as { children?: ComponentChildren };
  if (typeof v.type === "string" && props.children) props.children = straight(props.children);
  before?.(v);
};

void readSession();
startLive();
render(<App />, document.getElementById("app")!);
