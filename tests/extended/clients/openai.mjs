// Gets one whole and one streamed response, with the placeholder as the key.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sidentity", maxRetries: 0 });
const asked = { model: "google/gemini-2.5-flash", messages: [{ role: "user", content: "Say hello." }] };
const whole = await client.chat.completions.create(asked);
console.log(whole.choices[0].message.content);
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  console.log(chunk.choices[0].delta.content);
}
