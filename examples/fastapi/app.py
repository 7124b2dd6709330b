"""What a proxy in front has to get right: uploads, downloads, server-sent events, WebSockets."""
import asyncio
import hashlib
import os

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

app = FastAPI(title="Echo service")


@app.get("/")
def index():
    return {"space": os.environ.get("SPACE_ID"), "see": "/docs"}


@app.post("/upload")
async def upload(request: Request):
    size, digest = 0, hashlib.sha256()
    async for chunk in request.stream():
        size += len(chunk)
        digest.update(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


@app.get("/download")
def download(size: int = 1 << 20):
    def chunks(left):
        block = bytes(range(256)) * 256
        while left > 0:
            yield block[:left]
            left -= len(block)

    return StreamingResponse(chunks(size), media_type="application/octet-stream")


@app.get("/ticks")
async def ticks(n: int = 5, ms: int = 200):
    async def events():
        for i in range(n):
            yield f"id: {i}\ndata: tick {i}\n\n"
            await asyncio.sleep(ms / 1000)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/headers")
def headers(request: Request):
    return {"headers": request.headers.items(), "client": request.client.host}


@app.get("/env")
def env():
    return {"uid": os.getuid(), "cwd": os.getcwd(), "env": sorted(os.environ)}


@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ.get("PORT", "7860")), ws_max_size=16 << 20)
