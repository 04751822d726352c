/** Attributes that one provider knows of the visitor: those of its `browser_attribute_allowlist`, and no others. */
export type Attributes = Readonly<Record<string, unknown>>;

/** What is known of the visitor, by provider. Every provider may be missing. */
export type Profile = Readonly<Record<string, Attributes | undefined>>;

/** Decisions of the visitor by purpose, or in the form that has a consent platform's own categories as well. */
export type Consent =
  | Record<string, boolean>
  | { canonical: Record<string, boolean>; categories?: Record<string, boolean> };

export interface IdentifyOptions {
  /** HMAC that the shop's backend made of the user id; without it the hub may show nothing of a person. */
  signature?: string;
}

export interface Datafly {
  /** What is known now. Always an object, exchanged as a whole when a new answer comes. */
  readonly profile: Profile;

  /**
   * Name the person, at log-in or on every page. Traits of the same person merge, newer ones win.
   * Another person than before: `profile` is empty at once.
   */
  identify(userId: string | number, traits?: Record<string, unknown>, options?: IdentifyOptions): void;

  /** Tell that something happened. */
  track(event: string, properties?: Record<string, unknown>): void;

  /** Tell that a page was seen. */
  page(name?: string, properties?: Record<string, unknown>): void;

  /** Log out: forget the person here, and have the hub set new cookies. */
  reset(): void;

  /** Attach the visitor's decisions to the events from now on. */
  consent(decisions: Consent): void;

  /**
   * Resolves with the profile once this page's first answer is there, or at once with the last profile of the session,
   * and at the latest after `data-timeout` milliseconds. Never rejects.
   */
  onProfileReady(callback?: (profile: Profile) => void): Promise<Profile>;

  /**
   * Ask the hub again, after an identify or log-out that is on its way. Resolves with what is then known, at the latest
   * after `data-timeout` milliseconds. Makes no request while the hub limits the visitor. Never rejects.
   */
  refreshProfile(): Promise<Profile>;

  /** Call a method by its name, as pages do with an array before the library is loaded. */
  push<Method extends DataflyMethod>(call: [method: Method, ...values: Parameters<Datafly[Method]>]): void;
}

export type DataflyMethod = Exclude<keyof Datafly, 'profile' | 'push'>;

declare global {
  var datafly: Datafly;
  var _df: Datafly;
  interface Window {
    datafly: Datafly;
    _df: Datafly;
  }
}
