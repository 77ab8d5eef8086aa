// Builds the dashboard into dist/, which the gateway embeds. Names of assets carry a hash of their content, so that browsers keep
// them for good; beside each text file lie its gzip and brotli forms, so that the gateway never compresses.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const worthwhile = 512; // bytes; below, the header outweighs the gain

function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    writeBundle() {
      const walk = (dir: string) => {
        for (const name of readdirSync(dir)) {
          const path = join(dir, name);
          if (statSync(path).isDirectory()) walk(path);
          else if (/\.(js|css|html|svg)$/.test(name)) {
            const raw = readFileSync(path);
            if (raw.length < worthwhile) continue;
            writeFileSync(path + ".gz", gzipSync(raw, { level: 9 }));
            writeFileSync(path + ".br", brotliCompressSync(raw, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
          }
        }
      };
      walk(join(import.meta.dirname, "dist"));
    },
  };
}

// The chart draws straight lines only; uPlot's other curves would be a tenth of it.
function straightLines(): Plugin {
  return {
    name: "straight-lines",
    transform(code, id) {
      if (!id.includes("/uPlot.esm.js")) return null;
      const lean = code.replace(/\(paths\.(stepped|bars|spline)\s*=\s*\w+\);/g, "");
      if (lean.length === code.length) throw new Error("uPlot has no such curves any more: remove this plugin");
      return { code: lean, map: null };
    },
  };
}

export default defineConfig({
  base: "./", // so that it works behind a proxy's path prefix
  publicDir: false,
  plugins: [straightLines(), precompress()],
  // Calls of h() are shorter than those of the automatic runtime. A name that no variable has.
  oxc: { jsx: { runtime: "classic", pragma: "createNode", pragmaFrag: "Fragment" }, jsxInject: 'import { h as createNode, Fragment } from "preact"' },
  build: {
    target: ["chrome111", "firefox114", "safari16.4"],
    assetsInlineLimit: 0, // the policy allows no data: URLs
    modulePreload: { polyfill: false, resolveDependencies: (_, needed, at) => (at.hostType === "html" ? needed : []) }, // the first page's parts in one go
    cssCodeSplit: false, // one small style sheet; the chart's part is not worth a request
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8080", "/prometheus": "http://127.0.0.1:8080", "/icon.svg": "http://127.0.0.1:8080" } },
});
