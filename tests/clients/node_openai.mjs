// Call one server with OpenAI's client for JavaScript, and print the results as JSON.
//
// LLMD_NODE_MODULES is the folder in which the package is installed. LLMD_BASE_URL, LLMD_KEY and
// LLMD_MODEL name the server, the key and the model.

import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";

const require = createRequire(path.join(process.env.LLMD_NODE_MODULES, "x.js"));
const { default: OpenAI, APIError } = require("openai");

const model = process.env.LLMD_MODEL;
const client = new OpenAI({
  baseURL: process.env.LLMD_BASE_URL,
  apiKey: process.env.LLMD_KEY,
  maxRetries: 0,
});
const question = [{ role: "user", content: "Write a long story about a lighthouse keeper and the sea." }];
const tools = [
  {
    type: "function",
    function: {
      name: "switch_lamp",
      parameters: {
        type: "object",
        properties: { on: { type: "boolean" } },
        required: ["on"],
        additionalProperties: false,
      },
    },
  },
];

const models = [];
for await (const found of client.models.list()) models.push(found.id);

const chat = await client.chat.completions.create({ model, messages: question });

let streamed = "";
let usage = null;
const chunks = await client.chat.completions.create({
  model,
  messages: question,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of chunks) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}

const called = await client.chat.completions
  .stream({
    model,
    messages: question,
    tools,
    tool_choice: { type: "function", function: { name: "switch_lamp" } },
    max_tokens: 32,
  })
  .finalChatCompletion();

const response = await client.responses.create({ model, input: question });

const vectors = await client.embeddings.create({ model, input: ["a lamp", "the sea"] });

let error = null;
try {
  await client.chat.completions.create({ model: "gpt-5", messages: question });
} catch (raised) {
  if (!(raised instanceof APIError)) throw raised;
  error = { name: raised.constructor.name, code: raised.code, requestID: raised.requestID };
}

console.log(
  JSON.stringify({
    models,
    chat: chat.choices[0],
    streamed,
    usage,
    call: called.choices[0].message.tool_calls[0].function,
    finish: called.choices[0].finish_reason,
    response: response.output_text,
    vectors: vectors.data.map((entry) => entry.embedding.length),
    error,
  }),
);
