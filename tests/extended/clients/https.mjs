// Node.js' own clients, which know a proxy only from their environment. Prints one response per line.
import https from "node:https";

const cases = {
  async fetch(url) {
    return (await fetch(url)).text();
  },

  https(url) {
    return new Promise((resolve, reject) => {
      const sent = https.get(url, async (response) => {
        let all = "";
        for await (const part of response.setEncoding("utf8")) all += part;
        resolve(all);
      });
      sent.on("error", reject);
    });
  },
};

const [what, ...urls] = process.argv.slice(2);
for (const url of urls) console.log(await cases[what](url));
