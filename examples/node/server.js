// Rolls dice: `/` is a page, `/roll?n=2` is JSON.
import { randomInt } from "node:crypto";
import { createServer } from "node:http";

const page = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Dice</title>
<style>
body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 18px system-ui, sans-serif; background: #f4f4f5; }
main { text-align: center; }
#dice { font-size: 8rem; line-height: 1.2; color: #b91c1c; }
button { font: inherit; padding: .5em 1.5em; border: 0; border-radius: 10px; background: #18181b; color: #fff; }
</style></head>
<body><main><div id="dice">⚀⚅</div><button>Roll</button></main>
<script>
document.querySelector("button").onclick = async () => {
	const { dice } = await (await fetch("/roll?n=2")).json();
	document.getElementById("dice").textContent = dice.map((d) => String.fromCodePoint(0x267f + d)).join("");
};
</script></body>
</html>`;

const server = createServer((request, response) => {
	const url = new URL(request.url, "http://localhost");
	if (url.pathname === "/") {
		response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
		response.end(page);
	} else if (url.pathname === "/roll") {
		const n = Math.min(Math.max(Number(url.searchParams.get("n")) || 1, 1), 100);
		response.writeHead(200, { "content-type": "application/json" });
		response.end(JSON.stringify({ dice: Array.from({ length: n }, () => randomInt(1, 7)) }));
	} else {
		response.writeHead(404, { "content-type": "text/plain" });
		response.end("Nothing here.\n");
	}
});

const port = Number(process.env.PORT || 7860);
server.listen(port, "0.0.0.0", () => console.log(`listening on ${port}`));
process.on("SIGTERM", () => {
	server.close();
	server.closeAllConnections();
});
