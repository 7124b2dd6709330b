// Conway's Game of Life on a torus; cells row by row.

export function random(columns, rows) {
	return Array.from({ length: columns * rows }, () => Math.random() < 0.3);
}

export function step(cells, columns, rows) {
	return cells.map((alive, i) => {
		const x = i % columns;
		const y = Math.floor(i / columns);
		let neighbours = 0;
		for (let dy = -1; dy <= 1; dy++) {
			for (let dx = -1; dx <= 1; dx++) {
				const row = (y + dy + rows) % rows;
				const column = (x + dx + columns) % columns;
				if ((dx || dy) && cells[row * columns + column])
					neighbours++;
			}
		}
		return neighbours === 3 || (alive && neighbours === 2);
	});
}
