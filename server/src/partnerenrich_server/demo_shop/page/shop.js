/** The page: puts its parts together. */

import { arrive, catchUp, claim, consent, logIn, logOut, onCustomer } from './customer.js';
import { showHero } from './hero.js';
import { facts, hub } from './hub.js';
import { openPanel, refreshPanel } from './panel.js';
import { openTour } from './tour.js';

const part = (id) => document.querySelector(id);
const failed = () => {
	part('#notice').textContent = 'The shop does not answer. Does partnerenrich demo still run?';
	part('#notice').hidden = false;
};
const doing = (action) => action().catch(failed);

onCustomer(showHero);
onCustomer((name) => {
	part('#account').textContent = name || 'Log in';
	part('#log-out').hidden = !name;
});
onCustomer((_, ready) => ready && refreshPanel());

part('#account').addEventListener('click', () => part('#log-in').showModal());
part('#log-out').addEventListener('click', () => {
	part('#log-in').close();
	doing(logOut);
});
part('#people').append(
	...facts.people.map(({ name, contact, note }, place) => {
		const button = document.createElement('button');
		const hint = document.createElement('span');
		hint.textContent = [contact, note].filter(Boolean).join(' · ');
		button.append(name, hint);
		button.addEventListener('click', () => doing(() => logIn(place)));
		const item = document.createElement('li');
		item.append(button);
		return item;
	}),
);

part('#consent').addEventListener('change', ({ target }) => doing(() => consent(target.checked)));

let inBasket = 0;
for (const button of document.querySelectorAll('.add')) {
	button.addEventListener('click', () => {
		const { name, price } = button.dataset;
		hub.track('Product Added', { name, price: Number(price), currency: 'EUR' });
		part('#basket').textContent = ++inBasket;
		part('#said').textContent = `${name} is in the basket`;
		setTimeout(refreshPanel, 100);
	});
}

const [victim] = facts.people;
part('#forge').closest('section').hidden = !victim?.contact;
part('#victim').textContent = victim?.name;
part('#forge').addEventListener('click', () => doing(() => claim(victim.contact)));

openTour(failed);
openPanel();
arrive();
setInterval(catchUp, 250);
