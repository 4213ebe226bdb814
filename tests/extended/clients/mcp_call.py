"""Calls a tool of an MCP server once by each transport: mcp_call.py CONFIG TOOL ARGUMENTS"""

import asyncio
import json
import pathlib
import sys

from mcp.client.client import Client
from mcp.client.sse import sse_client


async def call(server):
    # A streamable HTTP client by its URL.
    target = sse_client(server["url"]) if server["type"] == "sse" else server["url"]
    async with Client(target) as client:
        result = await client.call_tool(sys.argv[2], json.loads(sys.argv[3]))
        assert not result.is_error, result
        return result.content[0].text


async def main():
    servers = json.loads(pathlib.Path(sys.argv[1]).read_text())["mcpServers"]
    return await asyncio.gather(*map(call, servers.values()))


print(*asyncio.run(main()))
