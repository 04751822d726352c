/** What the page knows of itself, and the library of the hub; where that is not there, the page works without. */

export const facts = JSON.parse(document.querySelector('#facts').textContent);

const nothing = async () => ({});

export const hub = window.datafly ?? {
	profile: {},
	consent() {},
	identify() {},
	page() {},
	reset() {},
	track() {},
	onProfileReady: nothing,
	refreshProfile: nothing,
};
