/** Who is at the device: logs in and out by the shop's backend, and tells the hub. */

import { facts, hub } from './hub.js';

const LATE_MS = 2000;

let person = facts.session;
let turn = 0;
let settled = false;
let shown;
const listeners = [];

/** Calls `listener` with the name of who is logged in, and whether their profile is there. */
export const onCustomer = (listener) => listeners.push(listener);

const tell = (ready) => {
	settled = ready;
	shown = hub.profile;
	listeners.forEach((listener) => listener(person?.name ?? '', ready));
};

const follow = async (settling) => {
	const mine = ++turn;
	tell(false);
	await settling;
	if (mine !== turn) return;
	tell(true);
	if (person && !Object.keys(hub.profile).length) setTimeout(lookAgain, LATE_MS, mine);
};

/** A lookup that was late went on in the background. */
const lookAgain = (mine) => mine === turn && hub.refreshProfile();

const vouch = () => hub.identify(person.userId, person.traits, { signature: person.signature });

const session = async (method, body) => {
	const headers = { 'Content-Type': 'application/json' };
	const response = await fetch('/shop/session', { method, headers, body: JSON.stringify(body) });
	if (!response.ok) throw new Error(`the shop answers ${response.status}`);
	return response.status === 204 ? null : response.json();
};

/** The first visit of this page; the backend rendered into it who is logged in. */
export const arrive = () => {
	hub.consent({ [facts.purpose]: true });
	if (person) vouch();
	hub.page('Home');
	return follow(hub.onProfileReady());
};

/** One of the people of the list, by place. */
export const logIn = async (place) => {
	person = await session('POST', { person: place });
	vouch();
	await follow(hub.refreshProfile());
};

export const logOut = async () => {
	person = await session('DELETE');
	hub.reset();
	await follow(hub.refreshProfile());
};

/** What any script could say: the e-mail address of somebody, without a signature. */
export const claim = async (email) => {
	await logOut();
	hub.identify('made-up', { email });
	await follow(hub.refreshProfile());
};

/** The visitor's decision goes with every event from now on; an identify takes it to the hub at once. */
export const consent = async (granted) => {
	hub.consent({ [facts.purpose]: granted });
	if (person) vouch();
	else hub.track('Consent Changed');
	await follow(hub.refreshProfile());
};

/** Show an answer that came after its time, or that another tab changed the person. */
export const catchUp = () => settled && hub.profile !== shown && tell(true);
