/** The tour: each step says what one sees, and its button leads to the next. */

import { claim, logIn, logOut } from './customer.js';
import { facts } from './hub.js';
import { setOutage } from './panel.js';

const part = (id) => document.querySelector(id);
const [first, second, third] = facts.people.filter(({ note }) => !note).map(({ name }) => name);
const place = (name) => facts.people.findIndex((person) => person.name === name);
const partner = facts.partners.find(({ key }) => key === facts.hero?.provider) ?? facts.partners[0];

const repair = () => Promise.all(facts.partners.map(({ key }) => setOutage(key, false)));

const steps = [
	facts.session
		? {
				title: `${facts.session.name} is back`,
				text: 'The backend rendered the signature into this page, and the last profile was there at once.',
			}
		: {
				title: 'Somebody arrives',
				text: 'Nobody has logged in, so no partner was asked. The page is the one for everybody.',
			},
	first && {
		button: `Log in as ${first}`,
		go: () => logIn(place(first)),
		title: `${first} logs in`,
		text: 'The shop’s backend signed the ids. The hub asked the partners once, and the hero changed without a reload.',
	},
	second && {
		button: `Hand the device to ${second}`,
		go: () => logIn(place(second)),
		title: `${second}, on the same device`,
		text: `What was known of ${first} left the page at once, before any answer. Two people never share attributes.`,
	},
	third && {
		button: `Pull ${partner.title}’s plug, log in ${third}`,
		go: async () => {
			await setOutage(partner.key, true);
			await logIn(place(third));
		},
		title: `${partner.title} is down`,
		text: `${third} was never seen before and the partner fails: the event goes on without, and the page did not wait.`,
	},
	third && {
		button: `Now log in ${first} again`,
		go: () => logIn(place(first)),
		title: 'Memory carries on',
		text: `${partner.title} is still down. ${first} was seen a moment ago, so everything is there.`,
	},
	first && {
		button: `Repair it, and claim to be ${first}`,
		go: async () => {
			await repair();
			await claim(facts.people[place(first)].contact);
		},
		title: 'A liar',
		text: `A script said ${first}’s e-mail address, unsigned. The server may use it; the page is shown nothing.`,
	},
	{
		button: 'Log out',
		go: logOut,
		title: 'Logged out',
		text: 'New cookies, an empty profile, and the old cookies open nothing any more.',
	},
].filter(Boolean);

let at = 0;

const show = () => {
	const { title, text } = steps[at];
	part('#tour-title').textContent = title;
	part('#tour-text').textContent = text;
	part('#tour-next').textContent = steps[at + 1]?.button ?? 'Start over';
	[...part('#steps').children].forEach((dot, index) => dot.classList.toggle('done', index <= at));
};

export const openTour = (failed) => {
	part('#steps').append(...steps.map(() => document.createElement('li')));
	part('#tour-next').addEventListener('click', async ({ currentTarget }) => {
		if (currentTarget.ariaBusy === 'true') return;
		currentTarget.ariaBusy = 'true';
		try {
			const next = steps[at + 1];
			if (!next) location.reload();
			else await next.go();
			at = next ? at + 1 : at;
			show();
		} catch (error) {
			failed(error);
		}
		currentTarget.ariaBusy = 'false';
	});
	show();
};
