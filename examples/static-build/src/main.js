import "./style.css";
import { random, step } from "./life.js";

const canvas = document.getElementById("life");
const label = document.getElementById("generation");
const size = 8;
const columns = canvas.width / size;
const rows = canvas.height / size;
let cells;
let generation;

function shuffle() {
	cells = random(columns, rows);
	generation = 0;
}

function draw() {
	const context = canvas.getContext("2d");
	context.clearRect(0, 0, canvas.width, canvas.height);
	context.fillStyle = "#7c3aed";
	cells.forEach((alive, i) => {
		if (alive)
			context.fillRect((i % columns) * size, Math.floor(i / columns) * size, size - 1, size - 1);
	});
	label.textContent = `generation ${generation}`;
}

document.getElementById("shuffle").onclick = shuffle;
shuffle();
draw();
setInterval(() => {
	cells = step(cells, columns, rows);
	generation++;
	draw();
}, 120);
