// The first page, made lively: search, and cards that follow what happens on the machine. Without it the page still shows
// every Space, because the server has put the cards in.
'use strict';

const REFRESH_MS = 10000;
const COLOURS = ['red', 'yellow', 'green', 'blue', 'indigo', 'purple', 'pink', 'gray'];
const stageWords = {
	NO_APP_FILE: 'No app file',
	CONFIG_ERROR: 'Configuration error',
	BUILDING: 'Building',
	BUILD_ERROR: 'Build error',
	APP_STARTING: 'Starting',
	RUNNING: 'Running',
	RUNNING_BUILDING: 'Running, building',
	RUNNING_APP_STARTING: 'Running, restarting',
	RUNTIME_ERROR: 'Runtime error',
	SLEEPING: 'Sleeping',
	PAUSED: 'Paused',
	STOPPED: 'Stopped',
	DELETING: 'Deleting',
};

const list = document.getElementById('spaces');
const query = document.getElementById('query');

function make(tag, className, text) {
	const e = document.createElement(tag);
	if (className)
		e.className = className;
	if (text !== undefined)
		e.textContent = text;
	return e;
}

function hashed(id) {
	let h = 0;
	for (const c of id)
		h = (h * 31 + c.codePointAt(0)) >>> 0;
	return COLOURS[h % COLOURS.length];
}

function colour(name, id) {
	return COLOURS.includes(name) ? name : hashed(id);
}

// Links come from the server's answer; only http(s) ones are followed.
function link(url, text, className) {
	const a = make('a', className, text);
	if (/^(https?:\/)?\//.test(url))
		a.href = url;
	return a;
}

function makeCard(space) {
	const data = space.cardData || {};
	const card = make('li', 'card');
	const cover = make('div', `cover from-${colour(data.colorFrom, space.id)} to-${colour(data.colorTo, space.id + '+')}`);
	const emoji = make('span', 'emoji', data.emoji || '\u{1F680}');
	const title = make('h2');
	const foot = make('div', 'foot');

	emoji.setAttribute('aria-hidden', 'true');
	title.append(link(space.host, data.title || space.id.split('/')[1]));
	cover.append(emoji, title);
	if (data.short_description)
		cover.append(make('p', '', data.short_description));
	foot.append(link(`/spaces/${space.id}`, space.id, 'id'), make('span', 'stage'));
	card.append(cover, foot);
	card.dataset.id = space.id;
	return card;
}

function setStage(card, stage) {
	if (card.dataset.stage === stage && card.querySelector('.stage').textContent)
		return;
	card.dataset.stage = stage;
	card.querySelector('.stage').textContent = stageWords[stage] || stage;
}

function filter() {
	const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
	let shown = 0;
	for (const card of list.children) {
		const text = card.textContent.toLowerCase();
		card.hidden = !words.every((w) => text.includes(w));
		shown += card.hidden ? 0 : 1;
	}
	document.getElementById('nothing').hidden = shown > 0 || list.children.length === 0;
	document.getElementById('found').textContent = words.length ? `${shown} found` : '';
}

// Keeps the cards that are there (and the reader's place among them), adds new ones first, removes gone ones.
function show(spaces) {
	const cards = new Map([...list.children].map((c) => [c.dataset.id, c]));
	for (const space of spaces) {
		let card = cards.get(space.id);
		if (!card) {
			card = makeCard(space);
			if (cards.size)
				list.prepend(card);
			else
				list.append(card);
		}
		setStage(card, (space.runtime || {}).stage || 'STOPPED');
		cards.delete(space.id);
	}
	for (const card of cards.values())
		card.remove();
	document.getElementById('search').hidden = list.children.length === 0;
	filter();
}

async function refresh() {
	if (!document.hidden) {
		try {
			const answer = await fetch('/api/spaces', {headers: {Accept: 'application/json'}});
			if (answer.ok)
				show(await answer.json());
		} catch {
			// The server restarts: the next round tells.
		}
	}
	setTimeout(refresh, REFRESH_MS);
}

query.addEventListener('input', filter);
document.getElementById('search').hidden = list.children.length === 0;
refresh();
