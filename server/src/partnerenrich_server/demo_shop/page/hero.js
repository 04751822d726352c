/** The hero: one picture and one text for each value of the attribute that tells people apart. */

import { facts, hub } from './hub.js';

const PICTURES = 6;
const HEADLINES = [
	'Good kit for any kind of sky.',
	'Up on the ridge at first light.',
	'Let it rain. You packed well.',
	'Over the pass, down to the water.',
	'The first tracks are the quiet ones.',
	'Take the coast path home.',
	'Stay out until the stars do.',
];
const NOBODY = {
	eyebrow: 'Made for weather',
	lead: 'Coats, boots and small comforts, mended for as long as you walk.',
	shelf: 'The kit',
};

const part = (id) => document.querySelector(id);
const hero = part('#hero');

/** `LifetimeTier` reads `Lifetime tier`. */
const words = (name) => {
	const text = name.replace(/[_-]+/g, ' ').replace(/([a-z\d])([A-Z])/g, '$1 $2').toLowerCase();
	return text[0].toUpperCase() + text.slice(1);
};

const pictureOf = (value) => {
	const known = facts.hero.variants[value];
	const number = known ?? [...value].reduce((sum, letter) => sum + letter.codePointAt(), 1);
	return 1 + ((number - 1) % PICTURES);
};

const chip = ([name, value]) => {
	const item = document.createElement('li');
	const label = document.createElement('span');
	label.textContent = words(name);
	item.append(label, ` ${value}`);
	return item;
};

/** Until `ready`, the place is kept and nothing of anybody is shown. */
export const showHero = (name, ready) => {
	hero.dataset.state = ready ? 'ready' : 'waiting';
	const { provider, attribute } = facts.hero ?? {};
	const attributes = (ready && hub.profile[provider]) || {};
	const value = typeof attributes[attribute] === 'string' ? attributes[attribute] : '';
	const picture = value ? pictureOf(value) : 0;
	hero.dataset.variant = picture;
	part('#headline').textContent = HEADLINES[picture];
	part('#eyebrow').textContent = value ? `For you: ${value}` : name ? `Hello, ${name}` : NOBODY.eyebrow;
	part('#lead').textContent = value ? `Welcome back${name && `, ${name}`}. What you like best is in front.` : NOBODY.lead;
	part('#chips').replaceChildren(...Object.entries(attributes).filter(([name]) => name !== attribute).map(chip));
	part('#shelf-title').textContent = value ? `Picked for a ${value}` : NOBODY.shelf;
	if (ready) part('#said').textContent = value ? `The page is now for: ${value}` : 'The page is for everybody';
};
