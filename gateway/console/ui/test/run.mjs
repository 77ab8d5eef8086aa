// Compiles the tests with what Vite brings and runs them under Node's own runner.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { build } from "vite";

const here = import.meta.dirname;
const out = mkdtempSync(join(tmpdir(), "sluice-ui-"));
const tests = readdirSync(here).filter((f) => f.endsWith(".test.ts"));
await build({
  configFile: false, root: here, logLevel: "error",
  build: { ssr: true, outDir: out, emptyOutDir: true, minify: false, rollupOptions: { input: tests.map((f) => join(here, f)), output: { entryFileNames: "[name].mjs" } } },
});
const run = spawnSync(process.execPath, ["--test", out], { stdio: "inherit" });
rmSync(out, { recursive: true });
process.exit(run.status ?? 1);
