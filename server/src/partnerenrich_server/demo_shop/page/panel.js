/** Behind the counter: the numbers of the hub, the last events, and a switch for each partner. */

import { facts, hub } from './hub.js';

const EVERY_MS = 1000;
const titles = Object.fromEntries(facts.partners.map(({ key, title }) => [key, title]));
const rows = {};
const part = (id) => document.querySelector(id);

const make = (tag, properties = {}, ...children) => {
	const element = Object.assign(document.createElement(tag), properties);
	element.append(...children);
	return element;
};

/** The samples of one metric in Prometheus' text form: labels and value. */
const samples = (text, name) =>
	[...text.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (.*)$`, 'gm'))].map(([, labels = '', value]) => ({
		...Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, text]) => [label, text])),
		value: Number(value),
	}));

const sum = (found) => found.reduce((total, { value }) => total + value, 0);

const count = (id, number) => {
	const place = part(id);
	const text = number.toLocaleString('en');
	if (place.textContent !== text) place.textContent = text;
};

const showNumbers = (text) => {
	const outcomes = samples(text, 'partnerenrich_outcomes_total');
	const calls = samples(text, 'partnerenrich_partner_calls_total');
	const reads = samples(text, 'partnerenrich_requests_total').filter(({ route }) => route === '/v1/enrich');
	count('#n-events', sum(samples(text, 'partnerenrich_events_total').filter(({ result }) => result === 'accepted')));
	count('#n-calls', sum(calls));
	count('#n-hits', sum(outcomes.filter(({ outcome }) => outcome === 'hit' || outcome === 'stale')));
	count('#n-reads', sum(reads));
	for (const { key } of facts.partners) {
		const ours = outcomes.filter(({ integration }) => integration === key).sort((a, b) => b.value - a.value);
		showPartner(rows[key], ours, sum(calls.filter(({ integration }) => integration === key)));
	}
	return reads.some(({ status }) => status === '429');
};

const showPartner = (row, outcomes, calls) => {
	row.calls.textContent = calls === 1 ? '1 call' : `${calls} calls`;
	row.bar.replaceChildren(...outcomes.map(({ outcome, value }) => {
		const piece = make('span');
		piece.dataset.outcome = outcome;
		piece.style.flexGrow = value;
		return piece;
	}));
	row.legend.replaceChildren(...outcomes.map(({ outcome, value }) => badge(outcome, `${outcome.replace('_', ' ')} ${value}`)));
};

const badge = (outcome, text) => {
	const element = make('span', { className: 'badge', textContent: text });
	element.dataset.outcome = outcome;
	return element;
};

let newest = 0;
const showEvents = (events) => {
	for (const { number, at, name, partners } of events.filter(({ number }) => number > newest)) {
		const time = new Date(at * 1000).toLocaleTimeString('en-GB');
		const replies = Object.entries(partners).map(([key, { outcome, latency_ms: ms, attributes }]) => {
			const told = [titles[key] ?? key, outcome.replace('_', ' ')];
			if (ms !== undefined) told.push(`${ms} ms`);
			if (attributes) told.push(`${attributes} attributes`);
			return badge(outcome, told.join(' · '));
		});
		part('#events').prepend(make('li', {}, make('p', {}, make('b', { textContent: name }), make('time', { textContent: time })), ...replies));
		newest = number;
	}
	while (part('#events').childElementCount > 12) part('#events').lastChild.remove();
};

const notice = (text) => {
	part('#notice').textContent = text;
	part('#notice').hidden = !text;
};

/** Show what is so now. A server that does not answer changes nothing. */
export const refreshPanel = async () => {
	part('#profile').textContent = JSON.stringify(hub.profile, null, 2);
	try {
		const [metrics, live] = await Promise.all([fetch('/metrics'), fetch('/shop/live')]);
		const limited = showNumbers(await metrics.text());
		const { events, down, device } = await live.json();
		showEvents(events);
		for (const [key, row] of Object.entries(rows)) row.show(down.includes(key));
		if (events.length && !device) notice('This browser drops the hub’s Secure cookies on plain http, so the hub does not know it again. Chrome, Edge and Firefox keep them on this address.');
		else notice(limited ? 'Too many profile reads in this minute: the hub has refused some.' : '');
	} catch {}
};

/** Let a partner fail, or answer again. */
export const setOutage = async (key, down) => {
	const headers = { 'Content-Type': 'application/json' };
	await fetch(`/shop/partners/${key}`, { method: 'POST', headers, body: JSON.stringify({ down }) });
	await refreshPanel();
};

const partnerRow = ({ key, title }) => {
	const input = make('input', { type: 'checkbox' });
	input.setAttribute('role', 'switch');
	const state = make('span', { textContent: 'up' });
	const label = make('label', { className: 'switch' }, input, make('span', { className: 'track' }), make('span', { className: 'unseen', textContent: `${title} ` }), state);
	const calls = make('p', { className: 'calls' });
	const bar = make('div', { className: 'outcomes' });
	const legend = make('div', { className: 'legend' });
	input.checked = true;
	input.addEventListener('change', () => setOutage(key, !input.checked));
	const show = (down) => {
		item.classList.toggle('down', down);
		input.checked = !down;
		state.textContent = down ? 'down' : 'up';
	};
	const item = make('li', {}, make('h3', { textContent: title }), calls, label, bar, legend);
	rows[key] = { calls, bar, legend, show };
	return item;
};

export const openPanel = () => {
	part('#partners').append(...facts.partners.map(partnerRow));
	setInterval(() => document.hidden || refreshPanel(), EVERY_MS);
	refreshPanel();
};
