/*! datafly.js, Apache-2.0 */
(() => {
	'use strict';
	const early = window.datafly; // calls that came first, or this library
	if (early?.refreshProfile) return;

	const own = document.currentScript;
	const tag = own instanceof HTMLScriptElement ? own : document.querySelector('script[data-key]');
	const { key = '', hub, timeout } = tag.dataset;
	const base = (hub || new URL('.', tag.src).href).replace(/\/*$/, '/v1/');
	const budget = timeout > 0 ? +timeout : 1500;

	const url = (path) => `${base}${path}?key=${encodeURIComponent(key)}`;
	const call = async (to, body) => {
		try {
			const response = await fetch(to, {
				method: body == null ? 'GET' : 'POST',
				body,
				credentials: 'include',
				cache: 'no-store', // nor its lock
				keepalive: true,
				signal: AbortSignal.timeout?.(10000),
			});
			response.content = await response.text();
			return response;
		} catch {}
	};
	const wait = (response, otherwise) => response?.headers.get('Retry-After') * 1000 || otherwise;
	const warn = (text) => console.warn('datafly: ' + text);

	// Reads without a value.
	const stored = (area, name, value) => {
		try {
			const storage = window[area];
			if (value == null) return storage.getItem('datafly.' + name) || '';
			storage.setItem('datafly.' + name, value);
		} catch {}
		return '';
	};

	// Whose profile it is: a salt, new for each person, and a hash once the hub took the identify.
	let who = stored('localStorage', 'who');
	const become = (next) => stored('localStorage', 'who', (who = next));
	const mark = (id) => {
		const salt = who.slice(0, 8);
		let hash = 0;
		for (const letter of salt + id) hash = Math.imul(hash ^ letter.codePointAt(), 0x1000193);
		return salt + hash;
	};

	let user, traits, consent;
	let profile = {};
	let known = true; // did the hub take the last change of person?

	let turn = 0;
	let limited = 0;
	const waiting = [];

	const load = async (mine) => {
		await null; // for an identify of this moment
		if (!(await known) || mine !== turn || Date.now() < limited) return;
		const response = await call(url('enrich'));
		if (response?.status === 429) limited = Date.now() + wait(response, 60000);
		const text = response?.ok ? response.content : '';
		if (mine !== turn || text[0] !== '{') return;
		profile = JSON.parse(text);
		stored('sessionStorage', 'profile', who + text);
	};

	const refresh = () => {
		const mine = ++turn;
		const loaded = () => mine === turn && waiting.splice(0).forEach((settle) => settle());
		load(mine).then(loaded, loaded);
		return new Promise((settle) => {
			waiting.push(settle);
			setTimeout(settle, budget);
		}).then(() => profile);
	};

	const forget = () => {
		user = traits = undefined;
		profile = {};
		stored('sessionStorage', 'profile', '');
		if (waiting[0]) refresh();
	};

	const follow = () => {
		const now = stored('localStorage', 'who');
		if (now !== who) forget(); // changed by another tab
		who = now;
	};

	// One request at a time. Events that wait share one, a change of person (`done`) goes alone.
	const queue = [];
	let busy;
	let tries = 0;

	const send = (to, body, done) => {
		const { size } = new Blob([body]);
		const last = queue[queue.length - 1];
		if (size > 60000 || (body && queue.length > 49)) throw Error(); // to emit
		if (!done && last && !last.done && last.size + size < 60000) {
			last.to = url('batch');
			last.body += ',' + body;
			last.size += size;
		} else queue.push({ to, body, size, done });
		pump();
	};

	const request = ({ to, body }) => [to, to === url('batch') ? `{"batch":[${body}]}` : body];

	const pump = async () => {
		if (busy) return;
		busy = true;
		while (queue[0]) {
			if (!navigator.onLine) await new Promise((back) => addEventListener('online', back, { once: true }));
			const item = queue.shift();
			const response = await call(...request(item));
			if (response && !/429|50[234]/.test(response.status)) {
				tries = 0;
				item.done?.(response.ok);
			} else {
				const pause = 2 ** Math.min(tries++, 6) * (500 + 1000 * Math.random());
				if (response) queue.unshift(item);
				await new Promise((later) => setTimeout(later, wait(response, pause)));
				if (!response) queue.unshift(item); // else a page that closes sends it twice
			}
		}
		busy = false;
	};

	const emit = (type, fields, done) => {
		try {
			const event = {
				type,
				...fields,
				userId: user,
				context: {
					page: {
						url: location.href,
						path: location.pathname,
						referrer: document.referrer,
						title: document.title,
						search: location.search,
					},
					locale: navigator.language,
					timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
					userAgent: navigator.userAgent,
					consent,
				},
				timestamp: new Date(),
				messageId: crypto.randomUUID(),
			};
			send(url('events') + (done ? '&wait_ms=' + Math.min(800, budget >> 1) : ''), JSON.stringify(event), done);
		} catch {
			warn(`dropped ${type}: no JSON, above 60 KB, queue full, or no https`);
			done?.(false);
		}
	};

	// A change of person stays for its answer, and what follows a log-out waits for it.
	const flush = () => {
		let at = 0;
		while (queue[at] && navigator.onLine && navigator.sendBeacon(...request(queue[at]))) {
			if (!queue[at].body) break;
			if (queue[at].done) at++;
			else queue.splice(at, 1);
		}
	};
	addEventListener('pagehide', flush);
	document.addEventListener('visibilitychange', () => document.hidden && flush());
	addEventListener('storage', follow);
	addEventListener('pageshow', (event) => event.persisted && follow());

	const change = () => {
		forget();
		become(Math.random().toFixed(8).slice(2));
	};

	const datafly = (window.datafly = window._df = {
		get profile() {
			return profile;
		},
		identify(userId, more, options) {
			const id = /string|number/.test(typeof userId) ? `${userId}` : '';
			if (!id) return warn('identify needs a user id');
			if (id !== user && who !== mark(id)) change();
			const mine = who;
			user = id;
			traits = { ...traits, ...more };
			known = new Promise((settle) => {
				emit('identify', { traits, signature: options?.signature }, (taken) => {
					if (taken && who === mine) become(mark(id));
					settle(taken);
				});
			});
		},
		track(event, properties = {}) {
			emit('track', { event, properties });
		},
		page(name, properties = {}) {
			emit('page', { name, properties });
		},
		reset() {
			change();
			stored('localStorage', 'reset', 1);
			known = new Promise((settle) => {
				send(url('reset'), '', (taken) => {
					if (taken) stored('localStorage', 'reset', '');
					settle(taken);
				});
			});
		},
		consent(decisions) {
			consent = decisions;
		},
		onProfileReady(callback) {
			const shown = ready.then(() => profile);
			shown.then(callback);
			return shown;
		},
		refreshProfile: refresh,
		push(call) {
			try {
				const [method, ...values] = call;
				datafly[method](...values);
			} catch {
				warn('push needs [method, ...values]');
			}
		},
	});

	if (stored('localStorage', 'reset')) datafly.reset(); // a log-out that the hub never confirmed
	let ready = refresh();
	try {
		const last = stored('sessionStorage', 'profile');
		if (last.startsWith(who + '{"')) {
			profile = JSON.parse(last.slice(who.length));
			ready = Promise.resolve();
		}
	} catch {}
	if (Array.isArray(early)) early.forEach((each) => datafly.push(each));
})();
